"""Small sets in MPII's four layouts, with values from a seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import scipy.io

from bipose_lit.datasets.mpii_truth import SHORT_NAMES

SIZE = (64, 48)


def picture(path: Path, value: int = 90, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((size[1], size[0], 3), value, np.uint8))


def persons(count: int, seed: int = 0, missing: float = 0.2) -> dict[str, Any]:
    """Joints (1-based pixels), presence, head boxes, objpos, scale."""
    rng = np.random.default_rng(seed)
    joints = rng.uniform(4, 44, (count, 16, 2)).round(4)
    present = rng.random((count, 16)) >= missing
    present[:, :10] |= ~present.any(axis=1, keepdims=True)
    low = rng.uniform(2, 20, (count, 2))
    return {
        "joints": joints,
        "present": present,
        "hidden": present & (rng.random((count, 16)) < 0.3),
        "boxes": np.stack([low, low + rng.uniform(5, 15, (count, 2))], axis=1),
        "center": rng.integers(15, 45, (count, 2)).astype(float),
        "scale": rng.uniform(0.15, 0.3, count).round(6),
    }


def heads(people: dict[str, Any]) -> np.ndarray:
    corners = people["boxes"]
    return 0.6 * np.sqrt(((corners[:, 1] - corners[:, 0]) ** 2).sum(axis=1))


def entries(people: dict[str, Any], images: list[str], **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "joints_vis": present.astype(int).tolist(),
            "joints": np.where(present[:, None], joints, -1.0).tolist(),
            "image": image,
            "scale": float(scale),
            "center": center.tolist(),
            **more,
        }
        for joints, present, center, scale, image in zip(
            people["joints"], people["present"], people["center"], people["scale"], images, strict=True
        )
    ]


def write_json(path: Path, people: dict[str, Any], images: list[str], truth: bool = True, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries(people, images, **more)))
    if truth:
        write_truth(path.with_name(f"gt_{path.stem}.mat"), people)


def write_truth(path: Path, people: dict[str, Any], **changes: Any) -> None:
    names = np.empty((1, 16), object)
    names[0] = SHORT_NAMES
    content = {
        "dataset_joints": names,
        "jnt_missing": (~people["present"]).T.astype(np.uint8),
        "pos_gt_src": np.where(people["present"][..., None], people["joints"], 0).transpose(1, 2, 0),
        "headboxes_src": people["boxes"].transpose(1, 2, 0),
    }
    scipy.io.savemat(path, {k: v for k, v in (content | changes).items() if v is not None})


def write_h5(path: Path, people: dict[str, Any], images: list[str], widened: bool = False, **changes: Any) -> None:
    """`widened`: centre and scale as in the h5 of Newell's demo."""
    path.parent.mkdir(parents=True, exist_ok=True)
    center, scale = people["center"].copy(), people["scale"].copy()
    if widened:
        center[:, 1] += 15 * scale
        scale *= 1.25
    content = {
        "part": np.where(people["present"][..., None], people["joints"], 0),
        "visible": (people["present"] & ~people["hidden"]).astype(float),
        "center": center,
        "scale": scale,
        "normalize": heads(people),
        "imgname": np.array([image.encode() for image in images]),
        "person": np.zeros(len(images)),
    }
    with h5py.File(path, "w") as file:
        for key, value in (content | changes).items():
            if value is not None:
                file[key] = value


def _struct(**fields: Any) -> np.ndarray:
    record = np.empty((1, 1), [(name, object) for name in fields])
    for name, value in fields.items():
        record[name][0, 0] = value
    return record


def _row(records: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(records, axis=1) if records else np.empty((0, 0))


def write_release(
    path: Path,
    people: dict[str, Any],
    images: list[str],
    videos: list[float] | None = None,
    train: list[int] | None = None,
    single: list[list[int]] | None = None,
    flags_as_text: bool = True,
) -> None:
    """One person a picture; neck and head top have no is_visible, as in the release."""
    annolist = []
    for i, image in enumerate(images):
        points = []
        for k in np.flatnonzero(people["present"][i]):
            shown = int(not people["hidden"][i, k])
            flag = np.empty((0, 0)) if k in (8, 9) else str(shown) if flags_as_text else shown
            x, y = people["joints"][i, k]
            points.append(_struct(x=x, y=y, id=int(k), is_visible=flag))
        (x1, y1), (x2, y2) = people["boxes"][i]
        cx, cy = people["center"][i]
        person = _struct(
            x1=x1, y1=y1, x2=x2, y2=y2, annopoints=_struct(point=_row(points)), scale=people["scale"][i],
            objpos=_struct(x=cx, y=cy),
        )  # fmt: skip
        annolist.append(
            _struct(
                image=_struct(name=image),
                annorect=person,
                frame_sec=np.empty((0, 0)),
                vididx=videos[i] if videos else np.empty((0, 0)),
            )
        )
    apart = np.empty((len(images), 1), object)
    for i in range(len(images)):
        apart[i, 0] = np.array(single[i] if single else [1]).reshape(-1, 1)
    release = _struct(
        annolist=_row(annolist),
        img_train=np.array([train or [1] * len(images)]),
        version="12",
        single_person=apart,
        act=np.empty((0, 0)),
        video_list=np.empty((0, 0)),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"RELEASE": release})


def write_keyframes(path: Path, names: list[str]) -> None:
    scipy.io.savemat(path, {"annolist_keyframes": _row([_struct(image=_struct(name=name)) for name in names])})
