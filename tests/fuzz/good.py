"""Small good sets of every format, to be broken. Positions are drawn from seeded generators: every run breaks the same files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import scipy.io

sys.path.insert(0, str(Path(__file__).parents[1]))
import mpii_sets
from tiny import write_jhmdb, write_penn

from bipose_lit import skeletons
from bipose_lit.datasets.jhmdb import JHMDB
from bipose_lit.datasets.mpii_release import KEYFRAMES
from bipose_lit.store import Predictions


def _picture(path: Path, size: tuple[int, int] = (64, 48), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    cv2.imwrite(str(path), image)


def _joints(rng: np.random.Generator, K: int) -> np.ndarray:
    return rng.uniform((6, 5), (58, 43), (K, 2)).round(2)


def _coco_annotation(number: int, image: int, rng: np.random.Generator, K: int = 17, **more: Any) -> dict[str, Any]:
    joints = np.concatenate([_joints(rng, K), rng.integers(1, 3, (K, 1))], axis=1)
    return {
        "id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "area": 700.5, "num_keypoints": K,
        "bbox": [4.0, 3.0, 56.0, 42.0], "keypoints": joints.ravel().tolist(), "segmentation": [[1, 1, 50, 1, 50, 40]], **more,
    }  # fmt: skip


def _coco_category(joints: tuple[str, ...]) -> dict[str, Any]:
    return {"id": 1, "name": "person", "supercategory": "person", "keypoints": list(joints), "skeleton": [[1, 2]]}


def make_coco(root: Path) -> None:
    """Eight training and three validation pictures with one or two persons each, a crowd, detections and results."""
    rng = np.random.default_rng(0)
    for split, count in {"train2017": 8, "val2017": 3}.items():
        images, persons = [], []
        for i in range(1, count + 1):
            images.append({"id": i, "file_name": f"{i:012d}.jpg", "width": 64, "height": 48})
            _picture(root / split / f"{i:012d}.jpg", seed=i)
            persons += [_coco_annotation(10 * i + j, i, rng) for j in range(1 + i % 2)]
        content = {"images": images, "annotations": persons, "categories": [_coco_category(skeletons.COCO.joints)]}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(content))
    boxes = [
        {"image_id": i, "category_id": 1, "bbox": [4.0, 3.0, 50.0, 40.0], "score": 0.5 + i / 10} for i in (1, 2, 3)
    ]
    (root / "detections.json").write_text(json.dumps(boxes))
    results = [{"image_id": p["image_id"], "category_id": 1, "keypoints": p["keypoints"], "score": 0.3 + k / 50}
               for k, p in enumerate(persons)]  # fmt: skip
    (root / "results.json").write_text(json.dumps(results))


def make_video_json(root: Path) -> None:
    """Two clips a split of four frames and one still, with a skeleton of four joints."""
    names = ("head", "left_shoulder", "right_shoulder", "right_hip")
    (root / "skeleton.yaml").write_text(
        "name: four\njoints: [head, left_shoulder, right_shoulder, right_hip]\nswaps: [[left_shoulder, right_shoulder]]\n"
        "limbs:\n- [head, left_shoulder]\n- [head, right_shoulder]\nsigmas: [0.05, 0.08, 0.08, 0.1]\n"
    )
    rng = np.random.default_rng(1)
    for k, split in enumerate(("train", "val", "test")):
        images, persons = [], []
        for i in range(9):
            video = {"video_id": 1 + i // 4, "frame_id": i % 4, "fps": 25.0} if i < 8 else {}
            name = f"pictures/{split}/{i:03d}.png"
            images.append(
                {
                    "id": 100 * k + i,
                    "file_name": name,
                    "width": 64,
                    "height": 48,
                    "cluster": f"{split}{i // 4}",
                    **video,
                }
            )
            _picture(root / name, seed=i)
            track = {"track_id": 5} if i < 8 else {}
            persons.append(_coco_annotation(1000 * k + i, 100 * k + i, rng, 4, **track))
        content = {"images": images, "annotations": persons, "categories": [_coco_category(names)]}
        (root / f"annotations_{split}.json").write_text(json.dumps(content))


def make_mpii(root: Path) -> None:
    """HRNet's lists with the evaluation's .mat beside them, and predictions."""
    rng = np.random.default_rng(2)
    (root / "annot").mkdir()
    for name, count in {"train": 8, "valid": 3}.items():
        entries, positions = [], []
        for i in range(count):
            joints = _joints(rng, 16) + 1
            positions.append(joints)
            picture = f"{name}{i:03d}.jpg"
            _picture(root / "images" / picture, seed=i)
            entries.append(
                {
                    "joints_vis": [1] * 16,
                    "joints": joints.tolist(),
                    "image": picture,
                    "scale": 0.21,
                    "center": [30.0, 22.0],
                }
            )
        (root / "annot" / f"{name}.json").write_text(json.dumps(entries))
        names = np.empty((1, 16), object)
        names[0] = ("rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor", "neck", "head", "rwri", "relb", "rsho",
                    "lsho", "lelb", "lwri")  # fmt: skip
        scipy.io.savemat(root / "annot" / f"gt_{name}.mat", {
            "dataset_joints": names, "jnt_missing": np.zeros((16, count), np.uint8), "pos_gt_src": np.stack(positions, axis=-1),
            "headboxes_src": np.tile(np.array([[10.0, 8.0], [20.0, 22.0]])[..., None], (1, 1, count)),
        })  # fmt: skip
    preds = np.stack(positions) + rng.normal(0, 1, (3, 16, 2))
    with h5py.File(root / "preds.h5", "w") as file:
        file["preds"] = preds
    scipy.io.savemat(root / "preds.mat", {"preds": preds})
    np.save(root / "preds.npy", preds)
    (root / "preds.json").write_text(json.dumps({"preds": preds.tolist()}))


def make_newell(root: Path) -> None:
    """Newell's h5 lists with names of images, and predictions."""
    rng = np.random.default_rng(3)
    (root / "annot").mkdir()
    for name, count in {"train": 8, "valid": 3}.items():
        part = np.stack([_joints(rng, 16) + 1 for _ in range(count)])
        names = [f"{name}{i:03d}.jpg" for i in range(count)]
        for i, picture in enumerate(names):
            _picture(root / "images" / picture, seed=i)
        with h5py.File(root / "annot" / f"{name}.h5", "w") as file:
            file["part"] = part
            file["visible"] = np.ones((count, 16))
            file["center"] = np.tile([30.0, 22.0], (count, 1))
            file["scale"] = np.full(count, 0.21)
            file["normalize"] = np.full(count, 8.0)
            file["imgname"] = np.array([n.encode() for n in names], "S13")
            file["index"], file["person"] = np.arange(count, dtype=float), np.ones(count)
            file["torsoangle"] = np.zeros(count)
        (root / "annot" / f"{name}_images.txt").write_text("\n".join(names) + "\n")
    with h5py.File(root / "preds.h5", "w") as file:
        file["preds"] = part


def make_mpii_release(root: Path) -> None:
    """The owners' one file: twelve pictures of six videos."""
    people = mpii_sets.persons(12, missing=0.0)
    images = [f"{i:09d}.jpg" for i in range(12)]
    for i, name in enumerate(images):
        _picture(root / "images" / name, seed=i)
    release = root / "annot" / "mpii_human_pose_v1_u12_1.mat"
    mpii_sets.write_release(release, people, images, [float(1 + i // 2) for i in range(12)])


def make_mpii_sequences(root: Path) -> None:
    """Four pictures with four frames on either side."""
    stems = [f"{i:09d}" for i in range(4)]
    for number, name in enumerate(("train", "valid")):
        people = mpii_sets.persons(4, number, missing=0.0)
        mpii_sets.write_json(root / "annot" / f"{name}.json", people, [f"{stem}.jpg" for stem in stems])
    for i, stem in enumerate(stems):
        mpii_sets.picture(root / "images" / f"{stem}.jpg")
        for frame in range(1, 10):
            batch = root / f"mpii_human_pose_v1_sequences_batch{1 + i // 2}"
            mpii_sets.picture(batch / stem / f"{frame:08d}.jpg", 20 * frame)
    mpii_sets.write_keyframes(root / KEYFRAMES, [f"{stem}/00000005.jpg" for stem in stems])


def make_penn(root: Path) -> None:
    """Eight training and two test clips, with predictions."""
    write_penn(root)
    predictions = {}
    for path in sorted((root / "labels").glob("*.mat")):
        content = scipy.io.loadmat(path)
        if int(content["train"].item()) == -1:
            predictions[path.stem] = np.stack([content["x"], content["y"]], -1)
    _clip_predictions(root, predictions)


def make_jhmdb(root: Path) -> None:
    """A few clips in all splits, with predictions of the test clips."""
    write_jhmdb(root)
    predictions = {}
    for line in (root / "splits" / "move_test_split1.txt").read_text().splitlines():
        name, mark = line.split()
        clip = name.removesuffix(".avi")
        if mark == "2":
            content = scipy.io.loadmat(root / "joint_positions" / "move" / clip / "joint_positions.mat")
            predictions[f"move/{clip}"] = content["pos_img"].transpose(2, 1, 0)
    _clip_predictions(root, predictions)


def make_sub_jhmdb(root: Path) -> None:
    """The same with sub-JHMDB's lists, puppet masks, and the predictions of a run of this suite."""
    make_jhmdb(root)
    (root / "sub_splits").mkdir()
    for number in (1, 2, 3):
        (root / "sub_splits" / f"move_test_split_{number}.txt").write_bytes(
            (root / "splits" / "move_test_split1.txt").read_bytes()
        )
    for label in sorted((root / "joint_positions").glob("*/*/joint_positions.mat")):
        joints = scipy.io.loadmat(label)["pos_img"]
        mask = np.zeros((48, 64, joints.shape[2]), np.uint8)
        for t in range(joints.shape[2]):
            (x1, y1), (x2, y2) = joints[:, :, t].min(axis=1).astype(int) - 1, joints[:, :, t].max(axis=1).astype(int)
            mask[y1:y2, x1:x2, t] = 1
        path = root / "puppet_mask" / label.parent.relative_to(root / "joint_positions") / "puppet_mask.mat"
        path.parent.mkdir(parents=True)
        scipy.io.savemat(path, {"part_mask": mask}, do_compression=True)
    tracks = JHMDB(root).index("test").tracks
    pred = np.concatenate([t.joints for t in tracks])
    N, K = pred.shape[:2]
    Predictions(
        uid=np.concatenate([t.uid for t in tracks]), clip=np.repeat(np.arange(len(tracks)), [len(t) for t in tracks]),
        frame=np.concatenate([np.arange(len(t)) for t in tracks]), pred=pred, score=np.ones((N, K), np.float32), joints=pred,
        visible=np.full((N, K), 2, np.uint8), norms=np.ones((N, 5), np.float32), fps=np.zeros(N, np.float32),
        clips=tuple(t.clip for t in tracks), clusters=tuple(t.cluster for t in tracks), joint_names=skeletons.JHMDB.joints,
        data="jhmdb/split1/test[clip-box]",
    ).save(root / "predictions-test.npz")  # fmt: skip


def _clip_predictions(root: Path, predictions: dict[str, np.ndarray]) -> None:
    (root / "predictions.json").write_text(json.dumps({k: v.tolist() for k, v in predictions.items()}))
    np.savez(root / "predictions.npz", **predictions)
    for name, joints in predictions.items():
        path = root / "predictions" / f"{name}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(path, {"x": joints[..., 0], "y": joints[..., 1], "joints": joints})


def make_posetrack(root: Path) -> None:
    """Three training and two validation sequences of three frames, with ignore regions and results."""
    rng = np.random.default_rng(4)
    for s, (split, sequence) in enumerate(
        [("train", "001"), ("train", "002"), ("train", "003"), ("val", "004"), ("val", "005")]
    ):
        images, persons = [], []
        for t in range(3):
            number = 10_000_000_000 + (s + 1) * 10_000 + t
            name = f"images/{split}/{sequence}/{t:06d}.jpg"
            _picture(root / name, seed=t)
            images.append({
                "id": number, "frame_id": number, "vid_id": sequence, "file_name": name, "nframes": 3, "is_labeled": True,
                "has_no_densepose": True, "ignore_regions_x": [[0, 5, 5]], "ignore_regions_y": [[0, 0, 5]],
            })  # fmt: skip
            for track in range(2):
                person = _coco_annotation(
                    number * 100 + track, number, rng, 17, track_id=track, bbox_head=[10, 8, 12, 14], scores=[]
                )
                person["keypoints"] = [1 if i % 3 == 2 else v for i, v in enumerate(person["keypoints"])]
                for slot in (3, 4):
                    person["keypoints"][3 * slot : 3 * slot + 3] = [0, 0, 0]
                del person["segmentation"], person["area"]
                persons.append(person)
        content = {
            "images": images,
            "annotations": persons,
            "categories": [_coco_category(skeletons.POSETRACK18.joints)],
        }
        path = root / "annotations" / split / f"{sequence}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        if split == "val":
            found = [
                {
                    "image_id": p["image_id"],
                    "keypoints": p["keypoints"],
                    "scores": [0.5] * 17,
                    "track_id": p["track_id"],
                }
                for p in persons
            ]
            path = root / "results" / f"{sequence}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"images": images, "annotations": found}))


def make_h36m(root: Path) -> None:
    """Positions of all subjects in the pickled layout, detections of four cameras, and predictions."""
    rng = np.random.default_rng(5)
    subjects = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
    positions = {
        s: {a: rng.normal(0, 0.4, (6, 32, 3)).astype(np.float32) for a in ("Walking", "Eating 1")} for s in subjects
    }
    detected = {
        s: {a: [rng.uniform(0, 1000, (6, 17, 2)).astype(np.float32) for _ in range(4)] for a in acts}
        for s, acts in positions.items()
    }
    meta = {
        "layout_name": "h36m",
        "num_joints": 17,
        "keypoints_symmetry": [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]],
    }
    np.savez(root / "data_3d_h36m.npz", positions_3d=np.array(positions, dtype=object))
    np.savez(
        root / "data_2d_h36m_gt.npz",
        positions_2d=np.array(detected, dtype=object),
        metadata=np.array(meta, dtype=object),
    )
    np.savez(root / "predictions.npz", positions_3d=np.array({s: positions[s] for s in ("S9", "S11")}, dtype=object))


def _leg(side: str, sign: int) -> tuple:
    return (f"{side[0]}HipJoint", (0, 0, 0), (f"{side}UpLeg", (1.3 * sign, -1.8, 0.8), (f"{side}Leg", (2.4 * sign, -6.7, 0),
            (f"{side}Foot", (2.5 * sign, -7, 0), (f"{side}ToeBase", (0.2 * sign, -0.4, 2.3))))))  # fmt: skip


def _arm(side: str, sign: int) -> tuple:
    return (
        f"{side}Shoulder",
        (0, 0, 0),
        (f"{side}Arm", (3.3 * sign, 1, 0), (f"{side}ForeArm", (5 * sign, 0, 0), (f"{side}Hand", (3.4 * sign, 0, 0)))),
    )


_HEAD = ("Neck", (0, 0, 0), ("Neck1", (0, 1.7, 0), ("Head", (0, 1.7, 0))))
_CHEST = ("Spine", (0, 2, 0), ("Spine1", (0, 2, 0), _HEAD, _arm("Left", 1), _arm("Right", -1)))
_BODY = ("Hips", (0, 0, 0), _leg("Left", 1), _leg("Right", -1), ("LowerBack", (0, 0, 0), _CHEST))


def _bvh(node: tuple, depth: int = 0) -> tuple[list[str], int]:
    name, offset, *children = node
    pad = "\t" * depth
    channels = (
        "6 Xposition Yposition Zposition Zrotation Yrotation Xrotation"
        if not depth
        else "3 Zrotation Yrotation Xrotation"
    )
    lines = [
        f"{pad}{'JOINT' if depth else 'ROOT'} {name}",
        pad + "{",
        f"{pad}\tOFFSET {' '.join(map(str, offset))}",
        f"{pad}\tCHANNELS {channels}",
    ]
    count = int(channels[0])
    for child in children:
        more, number = _bvh(child, depth + 1)
        lines, count = lines + more, count + number
    if not children:
        lines += [f"{pad}\tEnd Site", pad + "\t{", f"{pad}\t\tOFFSET 0 1 0", pad + "\t}"]
    return [*lines, pad + "}"], count


def make_mocap(root: Path) -> None:
    """Takes of a third of a second with a skeleton of CMU's names."""
    rng = np.random.default_rng(6)
    lines, channels = _bvh(_BODY)
    for number in range(5):
        motion = rng.normal(0, 10, (1, channels)) + np.cumsum(rng.normal(0, 0.3, (40, channels)), axis=0)
        rows = [" ".join(f"{v:.4f}" for v in row) for row in motion]
        text = ["HIERARCHY", *lines, "MOTION", "Frames: 40", "Frame Time: 0.0083333", *rows]
        (root / f"{number + 1:02d}_01.bvh").write_text("\n".join(text) + "\n")


def make_skeleton(root: Path) -> None:
    """The video set's skeleton alone."""
    make_video_json(root)
    for path in root.iterdir():
        if path.name != "skeleton.yaml" and path.is_file():
            path.unlink()
