"""The protocols of `bipose evaluate`: which module scores, and what it takes. Imports nothing heavy, as the help shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """One way to score.

    Attributes:
        module: holds `evaluate(annotations, predictions, **options) -> Outcome`.
        annotations: what the labels may be, for people.
        predictions: what the predictions may be.
        options: names of the keyword arguments that it takes.
    """

    module: str
    annotations: str
    predictions: str
    options: tuple[str, ...] = ()


PROTOCOLS: dict[str, Protocol] = {
    "coco": Protocol(
        "bipose_lit.evaluate.coco",
        "person_keypoints_*.json, or any json in COCO's layout",
        "results json: a list of image_id, category_id, keypoints, score",
        ("engine", "oks", "min_score", "nms", "skeleton"),
    ),
    "mpii": Protocol(
        "bipose_lit.evaluate.mpii",
        "gt_valid.mat, Newell's valid.h5, HRNet's valid.json with gt_valid.mat beside it, or the owners' "
        "mpii_human_pose_v1_u12_1.mat (..._u12_2.mat)",
        "h5, mat, npy or json with preds (N, 16, 2), in the annotations' order",
    ),
    "penn": Protocol(
        "bipose_lit.evaluate.penn",
        "the folder that holds labels/NNNN.mat",
        "a folder of NNNN.mat (x and y (T, 13); or preds or joints (T, 13, 2)), or one json or npz (by clip (T, 13, 2)), all "
        "with 1 for the first pixel; or a run's own predictions-test.npz",
        ("split",),
    ),
    "jhmdb": Protocol(
        "bipose_lit.evaluate.jhmdb",
        "the folder that holds joint_positions and splits; sizes are from its puppet_mask, or else from the joints",
        "a folder of CLASS/CLIP.mat or CLASS/CLIP/joint_positions.mat (pos_img (2, 15, T); x and y (T, 15); or preds or joints "
        "(T, 15, 2)), or one json or npz (by clip (T, 15, 2)), all with 1 for the first pixel; or a run's own "
        "predictions-test.npz; or a folder with one of these for each split: split1, split2, split3",
        ("split",),
    ),
    "sub_jhmdb": Protocol(
        "bipose_lit.evaluate.sub_jhmdb",
        "the folder that holds joint_positions and sub_splits; sizes as jhmdb: published ones are from puppet_mask",
        "what jhmdb takes",
        ("split",),
    ),
    "posetrack18": Protocol(
        "bipose_lit.evaluate.posetrack",
        "a folder of sequence jsons, or one of them",
        "a folder of jsons with the same names, or one of them: annotations with image_id, keypoints, scores",
    ),
    "h36m": Protocol(
        "bipose_lit.evaluate.h36m",
        "data_3d_*.npz: positions_3d by subject and action",
        "npz with the same names, in millimetres or metres; with --cameras an array for each camera, in its axes",
        ("subjects", "unit", "cameras"),
    ),
}


def describe() -> str:
    """What each protocol takes, for the help."""
    lines = []
    for name, protocol in PROTOCOLS.items():
        lines.append(f"  {name:<12} annotations: {protocol.annotations}")
        lines.append(f"  {'':<12} predictions: {protocol.predictions}")
        if protocol.options:
            lines.append(f"  {'':<12} options: {', '.join('--' + o.replace('_', '-') for o in protocol.options)}")
    return "\n".join(lines)
