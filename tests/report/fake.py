"""A result tree as an ablation leaves it, simulated: labels that move, occlusions, and arms that err as their memory allows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.index import Track
from bipose_lit.metrics.condensed import condense
from bipose_lit.skeletons import JHMDB
from bipose_lit.store import Predictions, RunResult, run_folder
from bipose_lit.types import NORMS, OCCLUDED, VISIBLE

SIZE, NAME = 128, "does-order-help"
ARMS = {
    "none": "per frame",
    "none_matched": "the same module, its state reset every frame",
    "lstm": "causal",
    "lstm_wide": "causal, as many weights as bilstm",
    "bilstm": "both directions",
    "mean": "window mean",
    "shuffled": "bilstm on shuffled frames",
}
PARAMETERS = {"none": 11_200_000, "none_matched": 13_900_000, "lstm": 13_900_000, "lstm_wide": 16_600_000,
              "bilstm": 16_600_000, "mean": 11_200_000, "shuffled": 16_600_000}  # fmt: skip
LOOK_AHEAD = {"bilstm": None, "shuffled": None, "mean": 3}

_REST = {
    "neck": (0, -22), "belly": (0, 0), "face": (0, -36), "shoulder": (11, -20), "hip": (7, 14), "elbow": (19, -6),
    "knee": (9, 34), "wrist": (23, 8), "ankle": (10, 54),
}  # fmt: skip


@dataclass(frozen=True)
class Pictures:
    """Frames drawn on demand: a flat figure on a striped ground, an occluder where joints are hidden."""

    joints: NDArray[np.float32]
    visible: NDArray[np.uint8]
    hue: int

    def __len__(self) -> int:
        return len(self.joints)

    def read(self, frames: Sequence[int]) -> list[NDArray[np.uint8]]:
        return [self._picture(f) for f in frames]

    def fingerprint(self) -> str:
        return str(self.hue)

    def _picture(self, frame: int) -> NDArray[np.uint8]:
        y, x = np.mgrid[:SIZE, :SIZE]
        ground = 90 + 25 * np.sin((x + 2 * y + 9 * self.hue) / 9)
        image = np.stack([ground, ground * 0.9 + self.hue % 40, ground * 0.8 + 20], -1).clip(0, 255).astype(np.uint8)
        points = np.round(self.joints[frame]).astype(int)
        for a, b in JHMDB.limb_indices:
            cv2.line(image, points[a].tolist(), points[b].tolist(), (150, 60 + self.hue % 90, 70), 9, cv2.LINE_AA)
        hidden = points[self.visible[frame] == OCCLUDED]
        if len(hidden):
            (x0, y0), (x1, y1) = hidden.min(0) - 7, hidden.max(0) + 7
            cv2.rectangle(image, (int(x0), int(y0)), (int(x1), int(y1)), (60, 95, 75), cv2.FILLED)
        return image


def labels(clusters: int, frames: int, seed: int = 7) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """(C, T, K, 2) joints and (C, T, K) visibility; every kind of hidden run occurs."""
    rng = np.random.default_rng(seed)
    K = len(JHMDB)
    rest = np.zeros((K, 2))
    for k, joint in enumerate(JHMDB.joints):
        part = joint.removeprefix("left_").removeprefix("right_")
        rest[k] = _REST[part]
        if joint.startswith("right_"):
            rest[k, 0] *= -1
    t = np.arange(frames)[:, None, None]
    joints = np.empty((clusters, frames, K, 2), np.float32)
    visible = np.full((clusters, frames, K), VISIBLE, np.uint8)
    for c in range(clusters):
        swing = rng.uniform(1, 7, (K, 2)) * (np.abs(rest) > 12)
        wave = np.sin(2 * np.pi * t / rng.uniform(18, 40) + rng.uniform(0, 6.28, (K, 2)))
        joints[c] = 64 + rest + swing * wave + 4 * np.sin(2 * np.pi * t / 50 + c)
        spans = (None, (frames // 2, frames), (0, frames // 2), (frames // 4, 3 * frames // 4), (0, frames))
        for parts, kind in ((("left_wrist", "left_elbow"), c), (("right_knee", "right_ankle"), c + 2)):
            span = spans[kind % 5]
            for part in parts if span else ():
                visible[c, slice(*span), JHMDB.index(part)] = OCCLUDED
    return joints, visible


def gaps(hidden: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frames since last and until next visible along axis 1; infinite where there is none."""
    since = np.full(hidden.shape, np.inf)
    last = np.full((hidden.shape[0], *hidden.shape[2:]), np.inf)
    for t in range(hidden.shape[1]):
        last = np.where(hidden[:, t], last + 1, 0)
        since[:, t] = last
    until = np.full(hidden.shape, np.inf)
    last = np.full_like(last, np.inf)
    for t in reversed(range(hidden.shape[1])):
        last = np.where(hidden[:, t], last + 1, 0)
        until[:, t] = last
    return since, until


def write_tree(
    out: Path,
    seeds: int = 5,
    clusters: int = 24,
    frames: int = 32,
    arms: Sequence[str] = tuple(ARMS),
    trial: bool = False,
    condensed: bool = False,
) -> tuple[Path, dict[str, Track]]:
    """Writes OUT/NAME with a manifest and one folder per run; returns it with the clips by name.

    `condensed`: as runs leave it; without, as older versions did, so that predictions may be spoilt in tests.
    """
    joints, visible = labels(clusters, frames)
    C, T, K = visible.shape
    hidden = visible == OCCLUDED
    since, until = gaps(hidden)
    norms = np.full((C, T, len(NORMS)), np.nan, np.float32)
    sizes = joints.max(2) - joints.min(2)
    norms[:, :, NORMS.index("bbox")] = sizes.max(-1)
    norms[:, :, NORMS.index("clip")] = (joints.max((1, 2)) - joints.min((1, 2))).max(-1)[:, None]
    torso = joints[:, :, JHMDB.index("left_shoulder")] - joints[:, :, JHMDB.index("right_hip")]
    norms[:, :, NORMS.index("torso")] = np.linalg.norm(torso, axis=-1)
    uid = np.arange(C * T).reshape(C, T) + 100
    names = tuple(f"scene{c:03d}/person0" for c in range(C))
    for a, arm in enumerate(arms):
        for seed in range(seeds):
            rng = np.random.default_rng([seed, a])
            shared = np.random.default_rng([99]).normal(size=joints.shape)
            memory = {"none": np.inf, "none_matched": np.inf, "lstm": since, "lstm_wide": since,
                      "bilstm": np.minimum(since, until), "mean": np.inf, "shuffled": np.inf}[arm]  # fmt: skip
            drift = 5 + 12 * (1 - np.exp(-np.minimum(memory, 1e6) / 9.0))
            sigma = np.where(hidden, drift, 4.4 if arm in ("lstm", "lstm_wide", "bilstm", "mean") else 4.6)[..., None]
            level = 1 + 0.02 * rng.normal() + 0.03 * rng.normal(size=(C, 1, 1, 1))
            noise = 0.8 * shared + 0.6 * rng.normal(size=joints.shape)
            stay = np.random.default_rng([98]).normal(size=(C, 1, K, 2)) + 0.2 * noise
            noise = np.where(hidden[..., None], stay, noise)
            if arm in ("bilstm", "lstm", "lstm_wide", "mean"):
                noise = 0.9 * noise + 0.1 * np.roll(noise, 1, axis=1)
            pred = joints + sigma * level * noise
            clip = np.repeat(np.arange(C), T)
            saved = Predictions(
                uid=uid.reshape(-1), clip=clip, frame=np.tile(np.arange(T), C), pred=pred.reshape(-1, K, 2).astype("f4"),
                score=np.where(hidden, 0.4, 0.9).reshape(-1, K).astype("f4"), joints=joints.reshape(-1, K, 2),
                visible=visible.reshape(-1, K), norms=norms.reshape(-1, len(NORMS)),
                fps=np.full(C * T, 25, np.float32), clips=names, clusters=tuple(f"scene{c:03d}" for c in range(C)),
                joint_names=JHMDB.joints, data="synthetic/assay/test[clip-box]",
            )  # fmt: skip
            folder = run_folder(out, NAME, arm, seed)
            saved.save(folder / "predictions-test.npz")
            with (folder / "history.jsonl").open("w") as handle:
                for step in range(0, 401, 20):
                    value = (0.75 + 0.02 * a) * (1 - np.exp(-(step + 10) / 90)) + 0.004 * rng.normal()
                    row = {"step": step, "epoch": step // 50, "train/loss": float(np.exp(-step / 150) + 0.1),
                           "val/pck@0.1[clip,clip-box]": float(value)}  # fmt: skip
                    handle.write(json.dumps(row) + "\n")
            (folder / "config.yaml").write_text(f"model:\n  temporal: {arm}\nseed: {seed}\n")
            RunResult(
                name=NAME, arm=arm, seed=seed, status="finished",
                measured={"train_seconds": 41 + 3 * a + seed, "ms_per_frame": 4.1 + 0.35 * a + 0.01 * seed},
                facts={"parameters": PARAMETERS[arm], "flops_per_frame": 1_800_000_000 + PARAMETERS[arm] * 8,
                       "look_ahead_frames": LOOK_AHEAD.get(arm, 0),
                       "look_back_frames": 0 if arm.startswith("none") else None, "steps": 400},
                metrics={"test/pck@0.1[clip,clip-box]": 0.9}, scorings={"test": 1},
                predictions={"test": "predictions-test.npz"},
                clusters={"test": condense(saved).plain()} if condensed else {},
                config_hash=f"c{a}{seed}", data_fingerprint="d41d8c",
                weights_hash="e3b0c442", commit="0123456789abcdef", versions={"torch": "2.15.0", "lightning": "2.6.6"},
            ).save(folder)  # fmt: skip
    manifest = {
        "name": NAME, "question": "Does the order of frames help where a joint is hidden?",
        "arms": {arm: [f"temporal/{arm}.yaml"] for arm in arms}, "about": {arm: ARMS[arm] for arm in arms},
        "controls": [a for a in ("mean", "shuffled") if a in arms],
        "baseline": "none_matched" if "none_matched" in arms else arms[0],
        "contrasts": [c for c in (["bilstm", "none_matched"], ["bilstm", "lstm_wide"], ["lstm", "none_matched"])
                      if set(c) <= set(arms)],
        "seeds": list(range(seeds)), "endpoint": "pck@0.1[clip]", "margin": 0.005, "mode": "frozen",
        "stage1": "ResNet-18 of random weights, trained 20 epochs on stage-1 clusters", "trial": trial,
        "data": "simulated people, 24 scenes", "threads": 1,
    }  # fmt: skip
    low, size = joints.min((1, 2)), np.ptp(joints, axis=(1, 2))
    boxes = np.repeat(np.concatenate([low, size], 1)[:, None], T, axis=1)
    folder = out / NAME
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    tracks = {
        names[c]: Track(
            clip=names[c], cluster=f"scene{c:03d}", frames=Pictures(joints[c], visible[c], 17 * c % 97), joints=joints[c],
            visible=visible[c], boxes=boxes[c], norms=norms[c], uid=uid[c], image_size=(SIZE, SIZE),
            fps=25.0,
        )
        for c in range(C)
    }  # fmt: skip
    return folder, tracks
