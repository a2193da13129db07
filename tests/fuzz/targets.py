"""What is fuzzed: a small good set per format, what of it is broken, and how it is read and judged."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import good
import numpy as np

from bipose_lit import skeletons
from bipose_lit.datasets.index import PoseIndex
from bipose_lit.types import BiposeError

LARGEST = 1e6
"""No label may lie farther out than this, in pixels, and be taken for one."""


class UnusableNumberError(Exception):
    """Something was read that is not usable, and nothing was said."""


@dataclass(frozen=True)
class Target:
    """A reader or protocol with a good set.

    Attributes:
        name: for the table.
        make: writes the good set into a folder.
        read: reads it; returns what was skipped or left out.
        breaks: patterns of the files to break.
        told: the good set is not read without a remark.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], dict[str, Any]]
    breaks: tuple[str, ...] = ("**/*",)
    told: bool = False

    def breakable(self, root: Path) -> list[Path]:
        """The files to break, sorted."""
        found = sorted({p for pattern in self.breaks for p in root.glob(pattern) if p.is_file()})
        # Labels matter more than the many pictures: a picture is drawn as often as all of them were one file.
        pictures = [p for p in found if p.suffix in (".png", ".jpg", ".avi")]
        return [p for p in found if p not in pictures] + pictures[:1] + pictures[-1:]


def _wants(condition: Any, what: str) -> None:
    if not bool(condition):
        raise UnusableNumberError(what)


def judge(index: PoseIndex) -> None:
    """Raises UnusableNumberError where an index holds a number that is not usable."""
    K = len(index.skeleton)
    uids: list[int] = []
    _wants(index.tracks, "an empty index without an error")
    for track in index.tracks:
        T = len(track)
        at = f"{index.name} {track.clip}"
        _wants(T > 0 and track.joints.shape == (T, K, 2) and track.visible.shape == (T, K), f"{at}: shapes")
        _wants(
            np.isfinite(track.joints).all() and (np.abs(track.joints) <= LARGEST).all(), f"{at}: joints {track.joints}"
        )
        _wants(np.isin(track.visible, (0, 1, 2)).all(), f"{at}: visible {track.visible}")
        _wants((track.joints[track.visible == 0] == 0).all(), f"{at}: an absent joint has a place")
        _wants(
            np.isfinite(track.boxes).all() and (np.abs(track.boxes) <= 4 * LARGEST).all(), f"{at}: boxes {track.boxes}"
        )
        _wants((track.boxes[:, 2:] > 0).all(), f"{at}: a box without area {track.boxes}")
        known = track.norms[~np.isnan(track.norms)]
        _wants(((known >= 0) & (known <= 10 * LARGEST)).all(), f"{at}: norms {track.norms}")
        _wants(math.isfinite(track.fps) and track.fps >= 0, f"{at}: fps {track.fps}")
        _wants(math.isfinite(track.box_score), f"{at}: box score {track.box_score}")
        _wants(
            all(isinstance(n, int) and 0 <= n <= LARGEST for n in track.image_size), f"{at}: size {track.image_size}"
        )
        _wants(
            isinstance(track.clip, str) and isinstance(track.cluster, str) and isinstance(track.action, str),
            f"{at}: names",
        )
        for array in (track.joints_3d, track.detected):
            _wants(
                array is None or (np.isfinite(array).all() and (np.abs(array) < 1e9).all()), f"{at}: 3D or detections"
            )
        uids += track.uid.tolist()
    _wants(len(set(uids)) == len(uids) and min(uids) >= 0, f"{index.name}: uids repeat or are negative")


def reading(
    path: str, splits: tuple[str, ...] = ("train", "val", "test"), pictures: bool = True, **arguments: Any
) -> Callable:
    """A function that reads all splits of a reader and a picture of each, and judges the numbers."""
    module, name = path.rsplit(".", 1)

    def read(root: Path) -> dict[str, Any]:
        given = {k: str(root / v[1:]) if isinstance(v, str) and v.startswith("/") else v for k, v in arguments.items()}
        reader = getattr(importlib.import_module(module), name)(root, **given)
        skipped: dict[str, Any] = {}
        for split in splits:
            index = reader.index(split)
            judge(index)
            skipped.update(index.skipped)
            if pictures:
                for track in (index.tracks[0], index.tracks[-1]):
                    for image in track.frames.read([0, len(track) - 1]):
                        _wants(
                            image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size, "image"
                        )
        return skipped

    return read


def scoring(module: str, annotations: str, predictions: str, **options: Any) -> Callable:
    """A function that scores a file of predictions and judges the numbers."""

    def read(root: Path) -> dict[str, Any]:
        for part in (annotations, predictions):
            if not (root / part).exists():  # the command front says this
                raise BiposeError(f"{part}: no such file")
        outcome = importlib.import_module(module).evaluate(root / annotations, root / predictions, **options)
        for name, value in outcome.metrics.items():
            length = name.startswith(("mpjpe", "p_mpjpe", "n_mpjpe", "mpjve", "accel", "jitter"))
            _wants(math.isnan(value) or 0 <= value <= (1e9 if length else 1), f"{name} = {value}")
        _wants(all(isinstance(n, int) and n >= 0 for n in outcome.counts.values()), f"counts {outcome.counts}")
        return {name: n for name, n in outcome.counts.items() if "left_out" in name and n}

    return read


def read_skeleton(root: Path) -> dict[str, Any]:
    """Reads a skeleton file; a Skeleton checks itself."""
    found = skeletons.load_skeleton(root / "skeleton.yaml")
    _wants(len(found.flip) == len(found) and all(math.isfinite(s) and s > 0 for s in found.sigmas), "skeleton")
    return {}


D = "bipose_lit.datasets"
E = "bipose_lit.evaluate"
ANNOTATIONS = ("annotations/*.json", "annotations/**/*.json")
TARGETS = (
    Target(
        "jhmdb",
        good.make_jhmdb,
        reading(f"{D}.jhmdb.JHMDB"),
        ("joint_positions/**/*.mat", "splits/*.txt", "Rename_Images/**/*.png"),
    ),
    Target("penn", good.make_penn, reading(f"{D}.penn.PennAction"), ("labels/*.mat", "frames/**/*.jpg")),
    Target("coco", good.make_coco, reading(f"{D}.coco.COCO"), (*ANNOTATIONS, "**/*.jpg")),
    Target(
        "coco det-box",
        good.make_coco,
        reading(f"{D}.coco.COCO", ("test",), box_rule="det-box", detections="/detections.json"),
        ("detections.json", "annotations/*val2017.json"),
    ),
    Target(
        "video_json",
        good.make_video_json,
        reading(f"{D}.video_json.VideoJSON", skeleton="/skeleton.yaml"),
        ("*.json", "skeleton.yaml", "**/*.png"),
    ),
    Target("skeleton", good.make_skeleton, read_skeleton, ("skeleton.yaml",)),
    Target("mpii", good.make_mpii, reading(f"{D}.mpii.MPII"), ("annot/*.json", "annot/*.mat", "images/*.jpg")),
    Target("mpii newell", good.make_newell, reading(f"{D}.mpii.MPII"), ("annot/*", "images/*.jpg")),
    Target(
        "mpii release",
        good.make_mpii_release,
        reading(f"{D}.mpii.MPII", ("train", "val"), annotations="mat"),
        ("annot/*.mat", "images/*.jpg"),
        told=True,
    ),
    Target(
        "mpii_sequences",
        good.make_mpii_sequences,
        reading(f"{D}.mpii_sequences.MPIISequences", ("train", "test")),
        ("*.mat", "annot/*", "mpii_human_pose_v1_sequences_batch1/**/*.jpg"),
    ),
    Target(
        "posetrack18",
        good.make_posetrack,
        reading(f"{D}.posetrack.PoseTrack18"),
        ("annotations/**/*.json", "images/**/*.jpg"),
    ),
    Target("h36m", good.make_h36m, reading(f"{D}.h36m.H36M", pictures=False), ("data_3d*.npz",)),
    Target(
        "h36m 2d",
        good.make_h36m,
        reading(f"{D}.h36m.H36M", pictures=False, detections="/data_2d_h36m_gt.npz"),
        ("data_2d*.npz",),
    ),
    Target("mocap", good.make_mocap, reading(f"{D}.mocap.Mocap", ("train", "val"), pictures=False), ("*.bvh",)),
    Target(
        "score coco",
        good.make_coco,
        scoring(f"{E}.coco", "annotations/person_keypoints_val2017.json", "results.json"),
        ("results.json", "annotations/*val2017.json"),
    ),
    Target(
        "score mpii",
        good.make_mpii,
        scoring(f"{E}.mpii", "annot/gt_valid.mat", "preds.h5"),
        ("preds.h5", "annot/gt_valid.mat"),
    ),
    Target("score mpii mat", good.make_mpii, scoring(f"{E}.mpii", "annot/gt_valid.mat", "preds.mat"), ("preds.mat",)),
    Target("score mpii npy", good.make_mpii, scoring(f"{E}.mpii", "annot/gt_valid.mat", "preds.npy"), ("preds.npy",)),
    Target(
        "score mpii json",
        good.make_mpii,
        scoring(f"{E}.mpii", "annot/valid.json", "preds.json"),
        ("preds.json", "annot/valid.json", "annot/gt_valid.mat"),
    ),
    Target(
        "score mpii newell", good.make_newell, scoring(f"{E}.mpii", "annot/valid.h5", "preds.h5"), ("annot/valid.h5",)
    ),
    Target(
        "score penn",
        good.make_penn,
        scoring(f"{E}.penn", ".", "predictions.json"),
        ("predictions.json", "labels/*.mat"),
    ),
    Target("score penn mat", good.make_penn, scoring(f"{E}.penn", ".", "predictions"), ("predictions/*.mat",)),
    Target(
        "score jhmdb",
        good.make_jhmdb,
        scoring(f"{E}.jhmdb", ".", "predictions.npz"),
        ("predictions.npz", "joint_positions/**/*.mat", "splits/*.txt"),
    ),
    Target("score jhmdb mat", good.make_jhmdb, scoring(f"{E}.jhmdb", ".", "predictions"), ("predictions/**/*.mat",)),
    Target(
        "jhmdb puppet",
        good.make_sub_jhmdb,
        reading(f"{D}.jhmdb.JHMDB", box_rule="puppet-box", splits_folder="sub_splits"),
        ("puppet_mask/**/*.mat", "sub_splits/*.txt", "Rename_Images/**/*.png"),
    ),
    Target(
        "score sub_jhmdb",
        good.make_sub_jhmdb,
        scoring(f"{E}.sub_jhmdb", ".", "predictions-test.npz", split="all"),
        ("predictions-test.npz", "puppet_mask/**/*.mat", "joint_positions/**/*.mat", "sub_splits/*.txt"),
    ),
    Target(
        "score posetrack18",
        good.make_posetrack,
        scoring(f"{E}.posetrack", "annotations/val", "results"),
        ("results/*.json", "annotations/val/*.json"),
    ),
    Target(
        "score h36m",
        good.make_h36m,
        scoring(f"{E}.h36m", "data_3d_h36m.npz", "predictions.npz"),
        ("predictions.npz", "data_3d_h36m.npz"),
    ),
)
