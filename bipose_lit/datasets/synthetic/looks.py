"""What a person looks like: build, skin, hair, clothes. Drawn from an rng; painted onto the mesh by `paint`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bipose_lit.datasets.synthetic.anatomy import Build
from bipose_lit.datasets.synthetic.textures import Fabric, colour, contrasting, luminance

# Skin from dark to light; the six types of Fitzpatrick's scale, as sRGB in round numbers.
SKIN = np.array(
    [[68, 45, 35], [112, 74, 52], [158, 110, 80], [196, 146, 112], [225, 180, 148], [243, 208, 184]], np.float32
)
HAIR = np.array([[22, 18, 17], [48, 32, 24], [86, 56, 34], [135, 92, 52], [205, 168, 104], [150, 66, 34], [168, 166, 164],
                 [228, 226, 220]], np.float32)  # fmt: skip
TOPS = ("tee", "shirt", "jacket", "hoodie", "tank", "jersey")
LOGOS = ("disc", "box", "bar", "ring", "number", "none")


MARKED = 0.9
"""Share of the people who wear marks that tell left from right."""


def _marks(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Reds for the left, blues for the right; one person's pair has one strength."""
    strength = rng.uniform(0.75, 1.1)
    left = np.array([rng.uniform(195, 235), rng.uniform(20, 80), rng.uniform(15, 45)])
    right = np.array([rng.uniform(15, 60), rng.uniform(80, 140), rng.uniform(200, 240)])
    return (left * strength).astype(np.float32), (right * strength).astype(np.float32)


@dataclass(frozen=True)
class Look:
    """One person's appearance.

    Attributes:
        look_id: identity; also the seed of all textures, so that disjoint ids make disjoint wardrobes.
        build: shape and cut.
        skin, hair, lips: RGB.
        top: one of TOPS.
        shirt, trousers: fabrics.
        inner: colour under an open jacket, of a hood or of a collar.
        logo: emblem on the chest's front, one of LOGOS; logo_colour, back_mark: its colour; whether the back bears a bar.
        trouser_stripe: stripe along the outer seams or None; odd_leg: colour of the left (+1) or right (-1) leg if it differs.
        socks, shoes, sole: colours.
        sleeve_band: (side, colour) of an arm band; sleeve_colour: (side, colour) of an odd sleeve; watch: side, 0 none.
        marks: (left, right) colours of bands on elbows, wrists, knees and ankles, red left and blue right, or None.
        beard, glasses: 0 none; beard 1 stubble, 2 full; glasses 1 frames, 2 dark.
        accessory: colour of the bag, pack or cap.
    """

    look_id: int
    build: Build
    skin: np.ndarray
    hair: np.ndarray
    lips: np.ndarray
    top: str
    shirt: Fabric
    trousers: Fabric
    inner: np.ndarray
    logo: str
    logo_colour: np.ndarray
    back_mark: bool
    trouser_stripe: np.ndarray | None
    odd_leg: tuple[int, np.ndarray] | None
    socks: np.ndarray
    shoes: np.ndarray
    sole: np.ndarray
    sleeve_band: tuple[int, np.ndarray] | None
    sleeve_colour: tuple[int, np.ndarray] | None
    watch: int
    marks: tuple[np.ndarray, np.ndarray] | None
    beard: int
    glasses: int
    accessory: np.ndarray

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Look:
        """Draws a person's appearance.

        Most people wear marks that tell left from right, as ships carry red and green lights: which side is which should be
        visible, not the thing to be found out. Faces and the fronts of clothes tell it of the others.
        """
        look_id = int(rng.integers(1, 2**31))
        tone = rng.uniform(0, len(SKIN) - 1)
        i = min(int(tone), len(SKIN) - 2)
        skin = SKIN[i] + (tone - i) * (SKIN[i + 1] - SKIN[i])
        skin = np.clip(skin + rng.normal(0, 5, 3), 25, 252).astype(np.float32)
        hair_weights = (
            np.array([5, 4, 3, 2, 1.6, 0.8, 1.2, 0.8]) if tone > 2.5 else np.array([8, 3, 0.5, 0.2, 0.2, 0.1, 0.7, 0.5])
        )
        hair = HAIR[rng.choice(len(HAIR), p=hair_weights / hair_weights.sum())] * rng.uniform(0.85, 1.12)
        if rng.random() < 0.04:
            hair = colour(rng, (0.5, 0.9), (0.4, 0.9))
        if abs(luminance(hair) - luminance(skin)) < 28:  # face and back of the head must differ
            hair = hair * 0.35 if luminance(skin) > 75 else np.minimum(hair * 0.2 + 8, 30)
        feminine = rng.random() < 0.5
        styles = ["short", "bob", "long", "tail", "bun", "cap", "bald"]
        odds = [0.18, 0.2, 0.27, 0.17, 0.08, 0.08, 0.02] if feminine else [0.68, 0.05, 0.05, 0.02, 0.01, 0.15, 0.04]
        style = str(rng.choice(styles, p=odds))
        top = str(rng.choice(TOPS, p=[0.3, 0.18, 0.18, 0.12, 0.1, 0.12]))
        long_sleeve = top in ("jacket", "hoodie") or (top in ("shirt", "tee") and rng.random() < 0.4)
        lower = str(rng.choice(["trousers", "shorts", "skirt"], p=[0.55, 0.27, 0.18] if feminine else [0.7, 0.3, 0.0]))
        girth = float(np.clip(rng.normal(0.98, 0.08), 0.82, 1.22))
        build = Build(
            girth=girth,
            waist=float(rng.uniform(0.86, 1.0) if feminine else rng.uniform(0.98, 1.1)),
            hips=float(rng.uniform(1.0, 1.08) if feminine else rng.uniform(0.93, 1.0)),
            bust=float(rng.uniform(1.02, 1.16) if feminine else rng.uniform(0.96, 1.03)),
            shoulders=float(rng.uniform(0.92, 1.0) if feminine else rng.uniform(0.98, 1.06)),
            belly=float(max(0.0, rng.normal(0.02, 0.03)) * girth),
            sleeve=float(rng.uniform(0.004, 0.02)),
            sleeve_end=0.0
            if top == "tank"
            else float(rng.uniform(0.9, 0.98) if long_sleeve else rng.uniform(0.22, 0.42)),
            trouser=float(rng.uniform(0.004, 0.02)),
            trouser_end={"trousers": rng.uniform(0.9, 0.97), "shorts": rng.uniform(0.25, 0.5), "skirt": 0.0}[lower],
            hair=float(rng.uniform(0.012, 0.032)) if style not in ("bald", "cap") else 0.010,
            hair_style=style,
            skirt=float(rng.uniform(0.35, 0.85)) if lower == "skirt" else 0.0,
            pack=bool(rng.random() < 0.10),
            bag=int(rng.choice([-1, 0, 1], p=[0.06, 0.88, 0.06])),
        )
        shirt = Fabric.sample(rng, 0.42)
        trousers = Fabric.sample(rng, 0.85)
        ground = trousers.colours[0]
        if lower == "trousers" and rng.random() < 0.65:  # most trousers are denim, black, grey or beige
            ground = np.array(
                [[44, 58, 92], [70, 92, 130], [32, 32, 36], [92, 92, 96], [150, 132, 104], [66, 58, 44]], np.float32
            )[rng.integers(6)]
            ground = ground * np.float32(rng.uniform(0.8, 1.25))
        trousers = Fabric(
            trousers.kind, np.stack([ground, ground * 0.8, ground * 0.6]), trousers.period, trousers.duty, trousers.seed
        )

        def side() -> int:
            return int(rng.choice([-1, 1]))

        base = shirt.colours[0]
        return cls(
            look_id=look_id, build=build, skin=skin, hair=np.asarray(hair, np.float32), top=top, shirt=shirt, trousers=trousers,
            lips=(skin * np.array([0.78, 0.48, 0.48]) + np.array([18, 0, 4])).astype(np.float32),
            inner=contrasting(rng, base, 70.0),
            logo=str(rng.choice(LOGOS, p=[0.2, 0.2, 0.15, 0.12, 0.23, 0.10])), logo_colour=contrasting(rng, base, 75.0),
            back_mark=bool(rng.random() < 0.2),
            trouser_stripe=contrasting(rng, ground, 60.0) if rng.random() < 0.15 else None,
            odd_leg=(side(), contrasting(rng, ground, 50.0)) if rng.random() < 0.12 else None,
            socks=np.full(3, 230, np.float32) if rng.random() < 0.6 else colour(rng),
            shoes=colour(rng, (0.0, 0.8), (0.08, 0.95)), sole=np.full(3, rng.choice([235, 40, 150]), np.float32),
            sleeve_band=(side(), contrasting(rng, base, 70.0)) if rng.random() < 0.18 else None,
            sleeve_colour=(side(), contrasting(rng, base, 50.0)) if rng.random() < 0.14 else None,
            watch=side() if rng.random() < 0.3 else 0,
            beard=0 if feminine else int(rng.choice([0, 1, 2], p=[0.6, 0.2, 0.2])),
            glasses=int(rng.choice([0, 1, 2], p=[0.76, 0.16, 0.08])),
            marks=_marks(rng) if rng.random() < MARKED else None,
            accessory=colour(rng, (0.2, 0.9), (0.15, 0.85)),
        )  # fmt: skip
