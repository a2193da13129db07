"""A tiny set of whole images in COCO's layout: people as coloured blobs, a crowd, somebody unlabelled, an image of nobody."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from scene_people import STAND

from bipose_lit.skeletons import COCO

SIZE = (96, 72)
CROWD, UNLABELLED = [60.0, 4.0, 30.0, 20.0], [2.0, 50.0, 20.0, 18.0]
HUES = np.linspace(0, 180, 17, endpoint=False).astype(np.uint8)
COLOURS = cv2.cvtColor(np.stack([HUES, *2 * [np.full(17, 255, np.uint8)]], 1)[None], cv2.COLOR_HSV2BGR)[0]


def people_of(image: int, count: int) -> np.ndarray:
    """(P, 17, 2) people beside one another."""
    rng = np.random.default_rng(image)
    places = np.array([(24.0, 38.0), (68.0, 40.0)])[:count]
    return (
        np.stack([STAND * 2.6 + place + rng.normal(0, 0.8, (17, 2)) for place in places])
        if count
        else np.zeros((0, 17, 2))
    )


def write_scenes(root: Path, counts: dict[str, tuple[int, ...]] | None = None) -> Path:
    """People per image of train2017 and val2017; in training, image 1 also has a crowd and somebody unlabelled."""
    number = 0
    for split, images in (counts or {"train": (2, 1, 0, 2, 1, 2), "val": (1, 2, 0)}).items():
        (root / f"{split}2017").mkdir(parents=True, exist_ok=True)
        (root / "annotations").mkdir(exist_ok=True)
        listed, persons = [], []
        for i, count in enumerate(images, 1 if split == "train" else 101):
            name = f"{i:012d}.png"
            listed.append({"id": i, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
            picture = np.full((SIZE[1], SIZE[0], 3), 40, np.uint8)
            for joints in people_of(i, count):
                for (x, y), colour in zip(joints, COLOURS.tolist(), strict=True):
                    cv2.circle(picture, (round(x), round(y)), 2, colour, -1)
                low, high = joints.min(0), joints.max(0)
                number += 1
                persons.append(
                    {"id": number, "image_id": i, "category_id": 1, "iscrowd": 0, "num_keypoints": 17, "area": 1200.0,
                     "bbox": [*low.tolist(), *(high - low).tolist()],
                     "keypoints": np.c_[joints, np.full(17, 2)].round(2).ravel().tolist()}
                )  # fmt: skip
            cv2.imwrite(str(root / f"{split}2017" / name), picture)
            if i == 1:
                for box, crowd in ((CROWD, 1), (UNLABELLED, 0)):
                    number += 1
                    persons.append(
                        {"id": number, "image_id": i, "category_id": 1, "iscrowd": crowd, "num_keypoints": 0, "area": 90.0,
                         "bbox": box, "keypoints": [0] * 51}
                    )  # fmt: skip
        categories = [{"id": 1, "name": "person", "keypoints": list(COCO.joints)}]
        content = {"images": listed, "annotations": persons, "categories": categories}
        (root / "annotations" / f"person_keypoints_{split}2017.json").write_text(json.dumps(content))
    return root
