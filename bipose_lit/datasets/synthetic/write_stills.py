"""Stills and 3D tracks of the synthetic set, in the official layouts of COCO, MPII and Human3.6M.

COCO        train2017/*.jpg, annotations/person_keypoints_train2017.json (and val2017, test2017)
MPII        images/*.jpg, annot/{train,valid,test}.json as HRNet's, annot/gt_{train,valid,test}.mat as the official evaluation's
Human3.6M   tracks.npz with plain arrays: SUBJECT/ACTION/{positions_3d,positions_2d,visible,K,R,t,fps}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bipose_lit import skeletons
from bipose_lit.datasets.synthetic.body import INDEX
from bipose_lit.datasets.synthetic.points import NAMES
from bipose_lit.datasets.synthetic.write import ClipLabels, encode_mat, put, whole_file

STILL_STRIDE = 16
"""Frames between two stills of a clip; the first one is half a stride into it."""

MPII_POINTS: Final = skeletons.MPII.joints
COCO_POINTS: Final = skeletons.COCO.joints
_COCO_FOLDER: Final = {"stage1": "train2017", "train": "train2017", "val": "val2017", "test": "test2017"}
_MPII_LIST: Final = {"stage1": "train", "train": "train", "val": "valid", "test": "test"}
_MPII_NAMES: Final = ("rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor", "neck", "head", "rwri", "relb",
                      "rsho", "lsho", "lelb", "lwri")  # fmt: skip
_AREA_OF_BOX = 0.53  # usual ratio of a person's segment to its box, where no segment is known (as xtcocotools has it)

# Human3.6M's 17 joints in the order of the common reduced skeleton.
H36M_POINTS: Final = (
    "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "spine", "neck", "head",
    "head_top", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip
_SUBJECTS: Final = {"stage1": ("S1", "S5"), "train": ("S1", "S5", "S6", "S7"), "val": ("S8",), "test": ("S9", "S11")}


def still_frames(frames: int) -> list[int]:
    """The frames of a clip that become stills."""
    return list(range(min(STILL_STRIDE // 2, frames // 2), frames, STILL_STRIDE))


def still_name(labels: ClipLabels, frame: int) -> str:
    """File name of a still: the clip's name and the frame."""
    return f"{labels.clip.replace('/', '-')}-{frame:04d}.jpg"


def still_paths(root: Path, labels: ClipLabels, frame: int, formats: Sequence[str]) -> list[Path]:
    """Where the pixels of one still belong in the formats asked for."""
    name = still_name(labels, frame)
    places = {"coco": root / "coco" / _COCO_FOLDER[labels.split] / name, "mpii": root / "mpii" / "images" / name}
    return [path for key, path in places.items() if key in formats]


def write_coco(root: Path, clips: Iterable[ClipLabels]) -> None:
    """COCO's person_keypoints JSONs. v: 2 seen, 1 hidden by an object or the body itself, 0 out of the picture."""
    sets: dict[str, dict[str, list[dict[str, Any]]]] = {}
    count = 0
    for labels in clips:
        found = sets.setdefault(_COCO_FOLDER[labels.split], {"images": [], "annotations": []})
        at = [NAMES.index(name) for name in COCO_POINTS]
        W, H = labels.size
        for frame in still_frames(len(labels)):
            if not np.isfinite(labels.boxes[frame]).all():
                continue
            count += 1
            x0, y0, x1, y1 = (float(v) for v in labels.boxes[frame])
            box = [x0, y0, x1 - x0 + 1, y1 - y0 + 1]
            dark = labels.hidden[frame, at] | labels.behind[frame, at]
            v = np.where(labels.outside[frame, at], 0, np.where(dark, 1, 2))
            xy = np.where(v[:, None] > 0, labels.points[frame, at].astype(np.float64), 0)
            triples = np.concatenate([xy.round(3), v[:, None]], axis=1)
            found["images"].append(
                {
                    "id": count,
                    "file_name": still_name(labels, frame),
                    "width": W,
                    "height": H,
                    "cluster": labels.cluster,
                }
            )
            found["annotations"].append(
                {
                    "id": count, "image_id": count, "category_id": 1, "iscrowd": 0, "bbox": box, "segmentation": [],
                    "area": round(_AREA_OF_BOX * box[2] * box[3], 3), "num_keypoints": int((v > 0).sum()),
                    "keypoints": [int(n) if float(n).is_integer() else float(n) for n in triples.ravel()],
                }
            )  # fmt: skip
    limbs = [[COCO_POINTS.index(a) + 1, COCO_POINTS.index(b) + 1] for a, b in skeletons.COCO.limbs]
    person = {"supercategory": "person", "id": 1, "name": "person", "keypoints": list(COCO_POINTS), "skeleton": limbs}
    info = {"description": "bipose synthetic stills; area is 0.53 of the box", "version": "1.0"}
    for folder, found in sets.items():
        content = {"info": info, "licenses": [], **found, "categories": [person]}
        put(root / "annotations" / f"person_keypoints_{folder}.json", json.dumps(content).encode())


def write_mpii(root: Path, clips: Iterable[ClipLabels]) -> None:
    """HRNet-style JSON lists and the evaluation's .mat; 1-based pixels; joints out of the picture are missing.

    `center` and `scale` are such that the reference code's own adjustment (15 scale down, then 1.25 wider) gives a square
    around the person's box with a quarter of padding.
    """
    lists: dict[str, list[tuple[dict[str, Any], np.ndarray, np.ndarray]]] = {}
    for labels in clips:
        at = [NAMES.index(name) for name in MPII_POINTS]
        for frame in still_frames(len(labels)):
            if not np.isfinite(labels.boxes[frame]).all():
                continue
            present = ~labels.outside[frame, at]
            xy = labels.points[frame, at].astype(np.float64) + 1
            x0, y0, x1, y1 = labels.boxes[frame].astype(np.float64) + 1
            scale = max(x1 - x0, y1 - y0) / 200
            entry = {
                "joints_vis": present.astype(int).tolist(),
                "joints": np.where(present[:, None], xy, -1.0).round(4).tolist(),
                "image": still_name(labels, frame),
                "scale": round(float(scale), 6),
                "center": [round(float((x0 + x1) / 2), 4), round(float((y0 + y1) / 2 - 15 * scale), 4)],
                "cluster": labels.cluster,
            }
            lists.setdefault(_MPII_LIST[labels.split], []).append(
                (entry, xy, labels.heads[frame].astype(np.float64) + 1)
            )
    for name, found in lists.items():
        put(root / "annot" / f"{name}.json", json.dumps([entry for entry, _, _ in found]).encode())
        names = np.empty((1, len(_MPII_NAMES)), object)
        names[0] = _MPII_NAMES
        missing = np.array([entry["joints_vis"] for entry, _, _ in found], np.uint8).T == 0
        content = {
            "dataset_joints": names,
            "jnt_missing": missing.astype(np.uint8),
            "pos_gt_src": np.stack([xy for _, xy, _ in found], axis=-1),
            "headboxes_src": np.stack([head.reshape(2, 2) for _, _, head in found], axis=-1),
        }
        put(root / "annot" / f"gt_{name}.mat", encode_mat(content))


def write_h36m(root: Path, clips: Iterable[ClipLabels]) -> None:
    """2D and 3D tracks of 17 joints by subject and action, plain arrays only.

    Per track: positions_3d (T, 17, 3) world metres, y up; positions_2d (T, 17, 2) pixels, 0-based; visible (T, 17);
    K (T, 3, 3), R (T, 3, 3), t (T, 3) with pixel = K (R x + t), as the camera moves; fps, a number. Subjects stand for splits as
    in the official protocol: S1, S5, S6, S7 train (stage 1: S1, S5), S8 val, S9 and S11 test; the action is "CLASS CLIP".
    """
    joints = [INDEX[name] for name in H36M_POINTS]
    arrays: dict[str, np.ndarray] = {}
    for labels in clips:
        subjects = _SUBJECTS[labels.split]
        subject = subjects[int(labels.cluster.removeprefix("scene")) % len(subjects)]
        key = f"{subject}/{labels.clip.replace('/', ' ')}"
        arrays[f"{key}/positions_3d"] = labels.positions[:, joints]
        arrays[f"{key}/positions_2d"] = labels.select(H36M_POINTS)
        arrays[f"{key}/visible"] = labels.visible(H36M_POINTS)
        for name in ("K", "R", "t"):
            arrays[f"{key}/{name}"] = getattr(labels, name)
        arrays[f"{key}/fps"] = np.array(labels.fps)
    with whole_file(root / "tracks.npz") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
