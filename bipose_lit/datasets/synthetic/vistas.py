"""Pictures on the walls of a scene: masonry with posters and furniture, or a view of trees, houses and sky."""

from __future__ import annotations

import cv2
import numpy as np

from bipose_lit.datasets.synthetic.textures import colour, contrasting, noise, soft, surface

PIXELS = 640  # across a wall


def sample_wall(rng: np.random.Generator, outdoors: bool, span: float, height: float, sky: np.ndarray) -> np.ndarray:
    """The picture on one wall.

    Args:
        rng: source.
        outdoors: a vista rather than a room's wall.
        span: width in metres.
        height: metres.
        sky: (3,) RGB of the sky.

    Returns:
        (rows, columns, 3) uint8 RGB; the first row is the wall's top.
    """
    metre = PIXELS / span
    rows = max(int(height * metre), 48)
    return _vista(rng, rows, PIXELS, metre, sky) if outdoors else _room(rng, rows, PIXELS, metre)


def _room(rng: np.random.Generator, rows: int, columns: int, metre: float) -> np.ndarray:
    kind = str(rng.choice(["plain", "noise", "brick", "tiles", "planks", "stripes", "panels", "stone"]))
    picture = surface(rng, kind, rows, columns, metre)
    x = 0.2 * metre
    while x < columns:
        what = str(rng.choice(["poster", "window", "shelf", "door", "curtain", "gap", "gap"]))
        w = int(rng.uniform(0.5, 1.6) * metre)
        x0, x1 = int(x), min(int(x) + w, columns)
        if x1 - x0 < 6:
            break
        if what == "poster":
            h = int(rng.uniform(0.5, 1.1) * metre)
            y0 = rows - int(rng.uniform(1.7, 2.1) * metre)
            _poster(rng, picture, x0, max(y0, 0), x1, min(max(y0, 0) + h, rows))
        elif what == "window":
            y0, y1 = rows - int(2.2 * metre), rows - int(0.9 * metre)
            glass = cv2.resize(
                _vista(rng, 40, 60, 12.0, colour(rng, (0.1, 0.4), (0.8, 0.98))), (x1 - x0, y1 - max(y0, 0))
            )
            picture[max(y0, 0) : y1, x0:x1] = glass
            frame = tuple(float(v) for v in colour(rng, (0.0, 0.2), (0.5, 0.98)))
            thick = max(1, int(0.05 * metre))
            cv2.rectangle(picture, (x0, max(y0, 0)), (x1, y1), frame, thick)
            cv2.line(picture, ((x0 + x1) // 2, max(y0, 0)), ((x0 + x1) // 2, y1), frame, thick)
        elif what == "shelf":
            _shelf(rng, picture, x0, x1, metre)
        elif what == "door":
            x1 = min(x0 + int(0.9 * metre), columns)
            y0 = max(rows - int(2.05 * metre), 0)
            leaf = surface(rng, "panels", rows - y0, x1 - x0, metre)
            picture[y0:, x0:x1] = leaf
            cv2.rectangle(
                picture, (x0, y0), (x1, rows), tuple(float(v) for v in colour(rng)), max(1, int(0.04 * metre))
            )
        elif what == "curtain":
            folds = surface(rng, "stripes", rows, x1 - x0, metre * 2)
            picture[:, x0:x1] = folds
        x += w + rng.uniform(0.2, 1.2) * metre
    depth = np.clip((rows - np.arange(rows)) / (0.35 * metre), 0, 1)
    picture = picture * (0.72 + 0.28 * depth)[:, None, None]  # darker where the wall meets the floor
    skirting = max(2, int(0.1 * metre))
    if rng.random() < 0.6:
        picture[-skirting:] = colour(rng, (0.0, 0.3))
    return picture.astype(np.uint8)


def _poster(rng: np.random.Generator, picture: np.ndarray, x0: int, y0: int, x1: int, y1: int) -> None:
    if y1 - y0 < 4:
        return
    ground = colour(rng)
    area = picture[y0:y1, x0:x1]
    area[:] = ground
    h, w = area.shape[:2]
    for _ in range(int(rng.integers(1, 6))):
        c = tuple(float(v) for v in contrasting(rng, ground, 30.0))
        centre = (int(rng.uniform(0, w)), int(rng.uniform(0, h)))
        if rng.random() < 0.5:
            cv2.ellipse(
                area,
                centre,
                (max(1, int(rng.uniform(0.08, 0.4) * w)), max(1, int(rng.uniform(0.05, 0.35) * h))),
                float(rng.uniform(0, 180)),
                0,
                360,
                c,
                -1,
                cv2.LINE_AA,
            )
        else:
            other = (int(rng.uniform(0, w)), int(rng.uniform(0, h)))
            cv2.line(area, centre, other, c, max(1, int(rng.uniform(0.03, 0.2) * w)), cv2.LINE_AA)


def _shelf(rng: np.random.Generator, picture: np.ndarray, x0: int, x1: int, metre: float) -> None:
    rows = picture.shape[0]
    top = max(rows - int(rng.uniform(0.8, 2.1) * metre), 0)
    wood = colour(rng, (0.2, 0.6), (0.2, 0.7))
    picture[top:, x0:x1] = wood * 0.45
    step = max(int(0.36 * metre), 8)
    for y in range(top, rows, step):
        x = x0 + 2
        while x < x1 - 3:
            w = int(rng.integers(2, max(4, int(0.12 * metre))))
            h = int(step * rng.uniform(0.45, 0.85))
            picture[max(y + step - h, top) : min(y + step, rows), x : min(x + w, x1 - 2)] = colour(rng)
            x += w + int(rng.integers(0, 3))
        picture[y : y + 2, x0:x1] = wood
    picture[top:, x0 : x0 + 2] = wood
    picture[top:, x1 - 2 : x1] = wood


def _vista(rng: np.random.Generator, rows: int, columns: int, metre: float, sky: np.ndarray) -> np.ndarray:
    up = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    picture = sky + (np.array([225, 228, 230], np.float32) - sky) * up
    picture = np.broadcast_to(picture, (rows, columns, 3)).copy()
    clouds = soft(noise(rng, (rows, columns), 0.3 * columns, 4) - 0.25, 0.9) * np.float32(rng.uniform(0, 0.8))
    picture += (245 - picture) * clouds[..., None]
    kind = str(rng.choice(["trees", "houses", "both", "hills", "fence"], p=[0.25, 0.25, 0.25, 0.1, 0.15]))
    y = np.arange(rows)[:, None]
    if kind in ("hills", "trees", "both", "fence"):
        ridge = rows * (rng.uniform(0.70, 0.84) + 0.07 * noise(rng, (1, columns), 0.35 * columns, 3)[0])
        far = np.array([95, 120, 105], np.float32) * np.float32(rng.uniform(0.7, 1.3))
        relief = 1 + 0.16 * noise(rng, (rows, columns), 0.12 * columns, 4)
        picture += (far * relief[..., None] - picture) * soft(y - ridge[None], 3.0)[..., None] * np.float32(0.85)
    if kind in ("houses", "both"):
        x = -rng.uniform(0, 0.1) * columns
        while x < columns:
            w = int(rng.uniform(3.0, 9.0) * metre)
            if rng.random() < 0.8:
                top = rows - int(rng.uniform(4.0, 9.5) * metre)
                _house(rng, picture, int(x), max(top, 2), int(x) + w, metre)
            x += w * rng.uniform(0.9, 1.5)
    if kind in ("trees", "both"):
        for _ in range(int(rng.integers(5, 15))):
            _tree(rng, picture, rng.uniform(0, columns), metre)
    if kind in ("fence", "hills") or rng.random() < 0.3:
        top = rows - int(rng.uniform(0.7, 1.9) * metre)
        leaf = surface(rng, str(rng.choice(["leaves", "planks", "brick", "stone"])), rows - top, columns, metre)
        picture[top:] = leaf
    return np.asarray(np.clip(picture, 0, 255), dtype=np.uint8)


def _house(rng: np.random.Generator, picture: np.ndarray, x0: int, top: int, x1: int, metre: float) -> None:
    rows, columns = picture.shape[:2]
    x0, x1 = max(x0, 0), min(x1, columns)
    if x1 - x0 < 4:
        return
    front = surface(rng, str(rng.choice(["plain", "brick", "noise", "planks"])), rows - top, x1 - x0, metre)
    picture[top:, x0:x1] = front
    step_y, step_x = max(int(rng.uniform(2.2, 3.0) * metre), 5), max(int(rng.uniform(1.2, 2.4) * metre), 5)
    glass = colour(rng, (0.1, 0.5), (0.15, 0.6))
    for y in range(top + step_y // 4, rows - step_y // 2, step_y):
        for x in range(x0 + step_x // 4, x1 - step_x // 2, step_x):
            picture[y : y + step_y // 2, x : x + step_x // 2] = glass * rng.uniform(0.7, 1.5)


def _tree(rng: np.random.Generator, picture: np.ndarray, x: float, metre: float) -> None:
    rows = picture.shape[0]
    high, r = rng.uniform(1.6, 6.0) * metre, rng.uniform(0.8, 2.2) * metre
    bark = tuple(float(v) for v in np.array([72, 55, 40]) * rng.uniform(0.6, 1.4))
    cv2.line(picture, (int(x), rows), (int(x), int(rows - high)), bark, max(1, int(0.22 * metre)), cv2.LINE_AA)
    green = np.array([60, 95, 45]) * rng.uniform(0.6, 1.4) + rng.normal(0, 10, 3)
    for _ in range(22):
        a, d = rng.uniform(0, 2 * np.pi), r * np.sqrt(rng.uniform(0, 1))
        c = np.clip(green * rng.uniform(0.65, 1.35), 0, 255)
        centre = (int(x + d * np.cos(a)), int(rows - high + 0.8 * d * np.sin(a)))
        cv2.circle(
            picture, centre, max(1, int(r * rng.uniform(0.15, 0.4))), tuple(float(v) for v in c), -1, cv2.LINE_AA
        )
