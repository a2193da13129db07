"""Real clips with things pasted in front of the person, and visibility that says which joints they hide.

`Occluded` wraps any reader: labels, boxes, norms and ids stay, the pixels get opaque things, and a joint labelled VISIBLE whose
pixel is covered by half or more becomes OCCLUDED. A joint's pixel is the nearest one, (floor(x + 0.5), floor(y + 0.5)), as
pixel centres sit at integers; a joint outside the picture keeps its flag.

Things come and go as in video: their stays are a stationary process that the clip cuts a window out of, so they may begin before
the clip or outlast it. What their paths know of the person is one place in one frame (see `covering`).

Hidden runs of joints in real video at 25 to 30 frames per second have a median of about 14 frames, and 90% are under 56; cut
to clips of 30 frames that is a median of 11, 90% up to 30 and 73% that touch an end. What it comes to on 24 JHMDB clips of 30
frames with 8 seeds (`occlusion_statistics`): 11, 28 and 73%. Of the joints that the regimes P, F, B and N hide there, 93, 93, 99
and 73% follow their regime: people move, and what stands still covers few joints of a gymnast from the first frame to the last.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bipose_lit.datasets.covering import REGIMES, Bools, Planner, pixel
from bipose_lit.datasets.cutouts import Cutouts, Drawn, Things
from bipose_lit.datasets.index import PoseIndex, Reader, Track
from bipose_lit.datasets.pasting import OccludedFrames, Piece
from bipose_lit.datasets.patches import Patches
from bipose_lit.datasets.synthetic.assay import run_statistics
from bipose_lit.datasets.transforms import OCCLUDERS, generator
from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE, BiposeError

TEXTURES = ("drawn", "patches")
SIZE = (0.5, 1.0)


class Occluded:
    """A reader's clips with things pasted in, in all splits. Stills are clips of one frame.

    Where things are and which joints they hide is a function of the clip (its name and labels), its split, the options and
    `seed`; with "patches" other clips fill the outlines. Whichever frames are read, in whatever order, changes nothing.

    Args:
        reader: any reader.
        hidden: share of the joints labelled VISIBLE that is hidden in an occluded clip, on average over clips. Clips vary, as
            a thing that would overshoot is kept with the odds that make the mean right. Values above about 0.6 are not
            reached; `occlusion_statistics` says what it came to.
        probability: share of clips with things in them at all.
        regime: "any": stays as they fall; "P": all begin in the clip and outlast it (seen, then hidden); "F": hidden, then
            seen; "B": inside the clip; "N": the whole clip. A clip too short for its regime is left as it is, and counted in
            `skipped`. The regimes are the things'; single joints move in and out (the module says how many follow).
        size: smallest and largest longer side of a thing, in units of the person's box's longer side (poles, doors and
            passers-by are up to 2.2 times as large, and where the person moves up to three times that).
        texture: "drawn", painted surfaces; or "patches", parts of other clips' frames of the same split, far from the
            labelled persons; null for "drawn".
        cutouts: folder of PNG files with an alpha channel to paste instead (see `cutouts.Cutouts`).
        seed: another seed gives other things at other places.
        follow: things move with the person, as somebody who walks alongside. They then show how the hidden person moves,
            which helps models that look at several frames: not for comparing them with others.

    Attributes:
        skeleton: the reader's.
        official: the reader's split lists are their owners' own.

    Raises:
        BiposeError: an argument out of range, or both a texture and cut-outs.
    """

    def __init__(
        self,
        reader: Reader,
        hidden: float = 0.25,
        probability: float = 1.0,
        regime: str = "any",
        size: tuple[float, float] = SIZE,
        texture: str | None = None,
        cutouts: str | Path | None = None,
        seed: int = 0,
        follow: bool = False,
    ) -> None:
        if texture is not None and cutouts is not None:
            raise BiposeError(
                f"occluded: texture {texture!r} and cutouts {cutouts} exclude each other; give one of them"
            )
        texture = texture or "drawn"
        if not 0 < hidden < 1 or not 0 <= probability <= 1:
            raise BiposeError(f"occluded: hidden {hidden} lies between 0 and 1, probability {probability} in 0 to 1")
        if regime not in REGIMES or texture not in TEXTURES:
            raise BiposeError(
                f"occluded: regime {regime!r} is one of {', '.join(REGIMES)}; texture {texture!r} one of {', '.join(TEXTURES)}"
            )
        if not 0.02 <= size[0] <= size[1] <= 2 or seed < 0:
            raise BiposeError(
                f"occluded: size {tuple(size)} is smallest and largest, within 0.02 to 2; seed {seed} is 0 or more"
            )
        self.reader, self.skeleton = reader, reader.skeleton
        self.official = bool(getattr(reader, "official", False))
        self.layout: Any = getattr(reader, "layout", ())
        self.hidden, self.probability, self.regime = float(hidden), float(probability), regime
        self.size, self.texture, self.seed = (float(size[0]), float(size[1])), texture, int(seed)
        self.follow = bool(follow)
        self.cutouts = None if cutouts is None else Path(cutouts)

    def index(self, split: str) -> PoseIndex:
        """The reader's index with other pixels and flags, named "jhmdb/split1/test+occluded0.25P-patches-seed3[clip-box]".

        The name tells the texture, and the options and the seed that are not the usual ones.

        The data set's own measure, where it has one, stays: it reads the labels' places, which are the same.

        Raises:
            BiposeError: the reader's own, or cut-outs that cannot be used.
        """
        index = self.reader.index(split)
        things: Things
        if self.cutouts is not None:
            things = Cutouts(self.cutouts, split)
        elif self.texture == "patches" and index.tracks:
            things = Patches(split, self.seed, index.tracks, boxes=index.box_rule in ("gt-box", "puppet-box"))
        else:
            things = Drawn(split, self.seed)
        least = {"P": 2, "F": 2, "B": 3}.get(self.regime, 1)
        skipped = dict(index.skipped)
        short = [track.clip for track in index.tracks if len(track) < least]
        if short:
            skipped[f"too short for regime {self.regime}, left without things in front"] = short
        tracks = tuple(self._track(track, things) if len(track) >= least else track for track in index.tracks)
        blank = [track.clip for track in index.tracks if not _hideable(track).any()]
        if blank:
            skipped["no joint that is seen and inside the picture, left without things in front"] = blank
        head, bracket, rule = index.name.partition("[")
        return replace(index, name=f"{head}+{self._mark()}{bracket}{rule}", tracks=tracks, skipped=skipped)

    def _mark(self) -> str:
        texture = self.texture if self.cutouts is None else "cutouts"
        words = [f"occluded{self.hidden:g}{'' if self.regime == 'any' else self.regime}", texture]
        if self.size != SIZE:
            words.append(f"size{self.size[0]:g}to{self.size[1]:g}")
        if self.probability != 1:
            words.append(f"probability{self.probability:g}")
        if self.follow:
            words.append("follow")
        if self.seed:
            words.append(f"seed{self.seed}")
        return "-".join(words)

    def _track(self, track: Track, things: Things) -> Track:
        digest = hashlib.blake2b(track.clip.encode(), digest_size=8).digest()
        rng = generator(self.seed, OCCLUDERS, int.from_bytes(digest, "big"))
        asked = _hideable(track)
        pieces: list[Piece] = []
        visible = track.visible
        if rng.random() < self.probability and asked.any():
            pieces, hidden = Planner(track, things, asked, self.regime, self.size, self.follow).plan(rng, self.hidden)
            visible = np.where(hidden, OCCLUDED, visible).astype(np.uint8)
        options = repr((self.hidden, self.probability, self.regime, self.size, self.texture, self.seed, self.follow))
        return replace(track, frames=OccludedFrames(track.frames, things, pieces, options), visible=visible)


def _hideable(track: Track) -> Bools:
    """(T, K) joints that are labelled VISIBLE and whose pixel is in the picture."""
    at = pixel(track.joints)
    inside = ((at >= 0) & (at < np.array(track.image_size))).all(axis=-1)
    return np.asarray(inside & (track.visible == VISIBLE))


def occlusion_statistics(*indexes: PoseIndex) -> dict[str, float]:
    """What the flags of an index, or of several together, come to.

    Returns:
        clips, frames; labelled: joints; hidden: share of labelled joints that are OCCLUDED; runs: of hidden frames of a
        joint, as cut by the clip; median, p90: their lengths in frames; touching: share of runs that touch a clip's end;
        share_P, share_F, share_B, share_N: of hidden joints, by what time can tell (`synthetic.assay.frame_regimes`).
    """
    tracks: Iterable[Track] = [track for index in indexes for track in index.tracks]
    found = run_statistics(track.visible == OCCLUDED for track in tracks)
    labelled = sum(int((track.visible != ABSENT).sum()) for track in tracks)
    dark = sum(int((track.visible == OCCLUDED).sum()) for track in tracks)
    return {**found, "labelled": labelled, "hidden": dark / labelled if labelled else math.nan}


__all__ = ["Occluded", "occlusion_statistics"]
