"""Things that move behind the person and carry no label: walkers, standing figures, balls, cars."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from bipose_lit.datasets.synthetic.camera import Camera
from bipose_lit.datasets.synthetic.looks import SKIN
from bipose_lit.datasets.synthetic.person import Light
from bipose_lit.datasets.synthetic.textures import colour

_SHIFT = 3  # sub-pixel bits of cv2's drawing
_LINE = cv2.LINE_AA


@dataclass(frozen=True)
class Distractor:
    """A moving thing on the ground.

    Attributes:
        kind: walker, figure, ball or car.
        start: (3,) metres from the scene's origin, at time 0.
        velocity: (3,) metres per second.
        size: height of a figure, radius of a ball, length of a car; metres.
        colours: (4, 3) RGB: upper, lower, skin, hair (ball and car read the first two).
        phase: radians, of gait or bounce.
    """

    kind: str
    start: np.ndarray
    velocity: np.ndarray
    size: float
    colours: np.ndarray
    phase: float

    def draw(
        self, image: np.ndarray, cam: Camera, origin: np.ndarray, time: float, behind: float, light: Light
    ) -> None:
        """Draws the thing into `image`, in place, if it is at least 0.4 m farther than `behind` (metres of depth)."""
        foot = origin + self.start + self.velocity * time
        depth = float(cam.to_camera(foot)[2])
        reach = 0.4 + (self.size if self.kind == "car" else 0.3)
        if depth < behind + reach:
            return
        scale = cam.K[0, 0] / depth
        tint = np.clip(self.colours * (light.key * 0.6 + light.ambient)[None], 0, 255)
        if self.kind == "ball":
            self._ball(image, cam, foot, scale, time, tint)
        elif self.kind == "car":
            self._car(image, cam, foot, scale, tint)
        else:
            self._figure(image, cam, foot, scale, time, tint)

    def _ball(
        self, image: np.ndarray, cam: Camera, foot: np.ndarray, scale: float, time: float, tint: np.ndarray
    ) -> None:
        hop = abs(np.sin(3.0 * time + self.phase)) * 0.8
        pixels, _ = cam.project(foot + np.array([0, self.size + hop, 0]))
        if np.abs(pixels).max() > 4000:
            return
        r = self.size * scale
        for part, (dx, c) in enumerate(
            ((0.0, tint[0] * 0.7), (-0.15, tint[0]), (-0.35, np.minimum(tint[0] * 1.35 + 15, 255)))
        ):
            _disc(image, pixels + dx * r, r * (1.0, 0.8, 0.4)[part], c)

    def _car(self, image: np.ndarray, cam: Camera, foot: np.ndarray, scale: float, tint: np.ndarray) -> None:
        n = np.linalg.norm(self.velocity)
        ahead = self.velocity / n if n > 1e-6 else np.array([1.0, 0, 0])
        half = self.size / 2
        side = np.array(
            [(-1, 0.35), (-1, 0.85), (-0.75, 0.95), (-0.5, 1.4), (0.3, 1.4), (0.6, 0.95), (1, 0.8), (1, 0.35)]
        )
        glass = np.array([(-0.62, 0.95), (-0.44, 1.3), (0.24, 1.3), (0.46, 0.95)])
        for outline, c in ((side, tint[0]), (glass, np.array([40.0, 50.0, 60.0]))):
            world = foot + outline[:, :1] * half * ahead + outline[:, 1:] * np.array([0, 1.0, 0])
            pixels, depth = cam.project(world)
            if (depth < 0.3).any() or np.abs(pixels).max() > 4000:
                return
            cv2.fillPoly(image, [np.round(pixels * 2**_SHIFT).astype(np.int32)], _rgb(c), _LINE, _SHIFT)
        for s in (-0.6, 0.6):
            pixels, _ = cam.project(foot + s * half * ahead + np.array([0, 0.33, 0]))
            _disc(image, pixels, 0.33 * scale, np.array([25.0, 25.0, 25.0]))
            _disc(image, pixels, 0.17 * scale, np.array([140.0, 140.0, 145.0]))

    def _figure(
        self, image: np.ndarray, cam: Camera, foot: np.ndarray, scale: float, time: float, tint: np.ndarray
    ) -> None:
        h = self.size
        n = np.linalg.norm(self.velocity)
        ahead = self.velocity / n if n > 1e-6 else np.array([np.sin(self.phase), 0, np.cos(self.phase)])
        left = np.array([ahead[2], 0.0, -ahead[0]])
        swing = (0.5 if self.kind == "walker" else 0.06) * np.sin(self.phase + 2 * np.pi * 0.9 * time)
        up = np.array([0.0, 1.0, 0.0])
        hip, neck = foot + 0.52 * h * up, foot + 0.82 * h * up
        strokes = []
        for s, side in ((1, left), (-1, -left)):
            top, angle = hip + 0.05 * h * side, s * swing
            knee = top + 0.25 * h * (np.sin(angle) * ahead - np.cos(angle) * up)
            back = angle - max(0.0, -s * np.cos(self.phase + 2 * np.pi * 0.9 * time)) * (
                0.7 if self.kind == "walker" else 0
            )
            ankle = knee + 0.25 * h * (np.sin(back) * ahead - np.cos(back) * up)
            strokes += [
                (top, knee, 0.085, tint[1]),
                (knee, ankle, 0.06, tint[1] * 0.92),
                (ankle, ankle + 0.09 * h * ahead, 0.045, tint[1] * 0.4),
            ]
            shoulder = neck + 0.105 * h * side - 0.02 * h * up
            elbow = shoulder + 0.17 * h * (np.sin(-angle) * ahead - np.cos(angle) * up)
            wrist = elbow + 0.16 * h * (np.sin(0.4 - angle) * ahead - np.cos(0.4 - angle) * up)
            strokes += [(shoulder, elbow, 0.055, tint[0] * 0.9), (elbow, wrist, 0.042, tint[2])]
        strokes += [
            (hip + 0.03 * h * up, neck - 0.08 * h * up, 0.17, tint[0]),
            (neck - 0.05 * h * up, neck - 0.04 * h * up, 0.19, tint[0]),
            (neck, neck + 0.06 * h * up, 0.05, tint[2] * 0.9),
        ]
        depth_of = cam.R[2]
        strokes.sort(key=lambda q: -float((q[0] + q[1]) @ depth_of))
        ends = np.array([[a, b] for a, b, _, _ in strokes])
        pixels, depth = cam.project(ends)
        if (depth < 0.3).any() or np.abs(pixels).max() > 4000:
            return
        for (a, b), (_, _, width, c) in zip(np.round(pixels * 2**_SHIFT).astype(int), strokes, strict=True):
            thick = max(1, round(width * h * scale))
            cv2.line(image, tuple(map(int, a)), tuple(map(int, b)), _rgb(c), thick, _LINE, _SHIFT)
        skull = foot + 0.93 * h * up
        face, _ = cam.project(np.stack([skull, skull + 0.025 * h * ahead]))
        toward = float(ahead @ cam.R[2]) < 0
        r = 0.062 * h * scale
        _disc(image, face[0], r, tint[3])
        _disc(image, face[1] + np.array([0, 0.2 * r]), r * (0.85 if toward else 0.6), tint[2] if toward else tint[3])


def _rgb(c: np.ndarray) -> tuple[float, float, float]:
    r, g, b = np.clip(c, 0, 255)
    return float(r), float(g), float(b)


def _disc(image: np.ndarray, centre: np.ndarray, radius: float, c: np.ndarray) -> None:
    if not np.all(np.abs(centre) < 4000):
        return
    scale = 2**_SHIFT
    at = (round(float(centre[0]) * scale), round(float(centre[1]) * scale))
    cv2.circle(image, at, max(1, round(radius * scale)), _rgb(c), -1, _LINE, _SHIFT)


def sample_distractor(rng: np.random.Generator, outdoors: bool) -> Distractor:
    """Draws a moving thing somewhere 1.2 to 9 m from the person, on any side."""
    kind = str(
        rng.choice(["walker", "figure", "ball", "car"], p=[0.4, 0.2, 0.2, 0.2] if outdoors else [0.45, 0.25, 0.3, 0.0])
    )
    azimuth, r = rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 9.0 if outdoors else 3.2)
    heading = rng.uniform(0, 2 * np.pi)
    speed = {
        "walker": rng.uniform(0.7, 1.6),
        "figure": 0.0,
        "ball": rng.uniform(0.3, 3.0),
        "car": rng.uniform(1.0, 5.0),
    }[kind]
    size = {
        "walker": rng.uniform(1.3, 1.9),
        "figure": rng.uniform(1.4, 1.9),
        "ball": rng.uniform(0.06, 0.22),
        "car": rng.uniform(3.2, 4.6),
    }[kind]
    tone = rng.uniform(0, len(SKIN) - 1.001)
    i = int(tone)
    skin = SKIN[i] + (tone - i) * (SKIN[i + 1] - SKIN[i])
    colours = np.stack([colour(rng), colour(rng, (0.0, 0.7), (0.1, 0.8)), skin, colour(rng, (0.1, 0.5), (0.08, 0.4))])
    velocity = speed * np.array([np.sin(heading), 0.0, np.cos(heading)])
    start = r * np.array([np.sin(azimuth), 0.0, np.cos(azimuth)]) - velocity * rng.uniform(0, 0.8)
    return Distractor(kind, start, velocity, float(size), colours, float(rng.uniform(0, 2 * np.pi)))
