"""Small sets in official layouts, for the tests of commands."""

import json

import cv2
import numpy as np
import scipy.io


def write_penn(root, clips=4, T=3, size=(64, 48), frames=True):
    """Half of the clips train, half test."""
    rng = np.random.default_rng(0)
    for n in range(1, clips + 1):
        name = f"{n:04d}"
        (root / "labels").mkdir(parents=True, exist_ok=True)
        x, y = rng.uniform(5, 60, (T, 13)), rng.uniform(5, 40, (T, 13))
        content = {
            "x": x, "y": y, "visibility": np.ones((T, 13), np.uint8), "bbox": np.tile([3.0, 4.0, 63.0, 44.0], (T, 1)),
            "dimensions": np.array([[size[1], size[0], T]], np.uint16), "nframes": np.uint8(T),
            "train": np.int32(1 if n <= clips // 2 else -1), "action": "jump_rope", "pose": "front",
        }  # fmt: skip
        scipy.io.savemat(root / "labels" / f"{name}.mat", content)
        if frames:
            (root / "frames" / name).mkdir(parents=True)
            for t in range(T):
                image = rng.integers(0, 255, (size[1], size[0], 3), np.uint8)
                cv2.imwrite(str(root / "frames" / name / f"{t + 1:06d}.jpg"), image)
    return root


def write_coco(root, people=((2, 1), (1,)), pictures=True):
    """People per image of train2017 and val2017."""
    rng = np.random.default_rng(1)
    annotation = 1
    for split, counts in zip(("train", "val"), people, strict=True):
        images, annotations = [], []
        (root / f"{split}2017").mkdir(parents=True, exist_ok=True)
        for i, count in enumerate(counts, 1 if split == "train" else 100):
            name = f"{i:012d}.jpg"
            images.append({"id": i, "file_name": name, "width": 64, "height": 48})
            if pictures:
                image = rng.integers(0, 255, (48, 64, 3), np.uint8)
                cv2.imwrite(str(root / f"{split}2017" / name), image)
            for _ in range(count):
                keypoints = np.stack([rng.uniform(5, 58, 17), rng.uniform(5, 42, 17), np.full(17, 2)], 1)
                annotations.append(
                    {"id": annotation, "image_id": i, "category_id": 1, "iscrowd": 0, "num_keypoints": 17, "area": 500.0,
                     "bbox": [4, 4, 56, 40], "keypoints": keypoints.round(1).ravel().tolist()}
                )  # fmt: skip
                annotation += 1
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"person_keypoints_{split}2017.json").write_text(json.dumps(content))
    return root


def write_jhmdb(root, T=3):
    """Six sources of one clip in class run: two of them test in all splits; videos."""
    rng = np.random.default_rng(2)
    clips = [f"{letter}_0" for letter in "abcdef"]
    for n, clip in enumerate(clips):
        labels, video = root / "joint_positions" / "run" / clip, root / "ReCompress_Videos" / "run" / f"{clip}.avi"
        labels.mkdir(parents=True)
        video.parent.mkdir(parents=True, exist_ok=True)
        xy = rng.uniform([[[10]], [[10]]], [[[300]], [[220]]], (2, 15, T))
        scipy.io.savemat(labels / "joint_positions.mat", {"pos_img": xy})
        out = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 30, (320, 240))
        for _ in range(T):
            out.write(np.full((240, 320, 3), 20 * n + 30, np.uint8))
        out.release()
    (root / "splits").mkdir()
    for split in (1, 2, 3):
        lines = [f"{clip}.avi {2 if clip[0] in 'de' else 1}" for clip in clips]
        (root / "splits" / f"run_test_split{split}.txt").write_text("\n".join(lines))
    return root


def write_mpii(root, pictures=2):
    """One person in each picture of annot/valid.json, which is the split test."""
    rng = np.random.default_rng(3)
    (root / "annot").mkdir(parents=True)
    (root / "images").mkdir()
    persons = []
    for n in range(1, pictures + 1):
        name = f"{n:09d}.jpg"
        cv2.imwrite(str(root / "images" / name), rng.integers(0, 255, (240, 320, 3), np.uint8))
        joints = rng.uniform([60, 20], [260, 220], (16, 2)).round(1)
        persons.append(
            {"image": name, "center": [160.0, 120.0], "scale": 1.2, "joints": joints.tolist(), "joints_vis": [1] * 16}
        )
    (root / "annot" / "valid.json").write_text(json.dumps(persons))
    return root


SKELETON = "name: hands\njoints: [head, left_hand, right_hand]\nlimbs: [[head, left_hand]]\ntorso: [head, left_hand]\n"


def write_video_json(root):
    """One clip of two frames of two people, with a skeleton of three joints in hands.yaml."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "hands.yaml").write_text(SKELETON)
    images, annotations = [], []
    for t in range(2):
        cv2.imwrite(str(root / f"{t}.png"), np.full((48, 64, 3), 90, np.uint8))
        images.append(
            {"id": t + 1, "file_name": f"{t}.png", "width": 64, "height": 48, "video_id": "walk", "frame_id": t}
        )
        for person in range(2):
            x = 10 + 20 * person
            annotations.append(
                {"id": 10 * person + t + 1, "image_id": t + 1, "track_id": person, "bbox": [x, 5, 15, 30],
                 "keypoints": [x + 2, 8, 2, x + 4, 20, 2, x + 9, 25, 1]}
            )  # fmt: skip
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": ["head", "left_hand", "right_hand"]}],
    }
    (root / "annotations_train.json").write_text(json.dumps(content))
    return root
