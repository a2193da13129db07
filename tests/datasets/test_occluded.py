"""Pasted things: pixels and flags agree to the pixel, everything else stays, and how much is hidden for how long."""

import math
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from memory_index import MemoryReader
from occluded_sets import SIZE, Figures, Plain, matte, write_cutouts

from bipose_lit.datamodule import PoseDataModule, check_leak
from bipose_lit.datasets.clips import ClipSampling, check_index, fingerprint
from bipose_lit.datasets.cutouts import COUNT, MARGIN, Cutouts, Drawn, load_cutout
from bipose_lit.datasets.frames import FolderFrames
from bipose_lit.datasets.index import Track
from bipose_lit.datasets.jhmdb import JHMDB
from bipose_lit.datasets.occluded import Occluded, occlusion_statistics
from bipose_lit.datasets.pasting import OccludedFrames, Piece, alpha_at, cover
from bipose_lit.datasets.patches import Patches
from bipose_lit.datasets.synthetic.occluders import OccluderTrack
from bipose_lit.metrics.summary import box_rule
from bipose_lit.skeletons import JHMDB as BODY
from bipose_lit.types import OCCLUDED, VISIBLE, BiposeError


@pytest.fixture(scope="module")
def cutouts(tmp_path_factory) -> Path:
    return write_cutouts(tmp_path_factory.mktemp("cutouts"))


@pytest.mark.parametrize("kind", ["drawn", "patches", "cutouts", "stills", "N"])
def test_flags_are_what_the_pixels_show(kind, cutouts):
    options = {"patches": {"texture": "patches"}, "cutouts": {"cutouts": cutouts}, "N": {"regime": "N"}}.get(kind, {})
    frames = 1 if kind == "stills" else 20
    reader = Figures(40 if kind == "stills" else 6, frames, 120, 100)
    changed = near = 0
    for plain, dark in zip(
        reader.index("val").tracks, Occluded(reader, 0.4, **options).index("val").tracks, strict=True
    ):
        black, white = (OccludedFrames(Plain(v, frames), dark.frames.things, dark.frames.pieces) for v in (0, 255))
        for t, (a, b) in enumerate(zip(black.read(range(frames)), white.read(range(frames)), strict=True)):
            cover = dark.frames.coverage(t, SIZE)
            np.testing.assert_allclose(matte(a, b), cover, atol=0.012)
            assert not a[cover == 0].any()
            for (x, y), old, new in zip(plain.joints[t], plain.visible[t], dark.visible[t], strict=True):
                column, row = math.floor(float(x) + 0.5), math.floor(float(y) + 0.5)
                inside = 0 <= column < SIZE[0] and 0 <= row < SIZE[1]
                hidden = inside and cover[row, column] >= 0.5
                expected = OCCLUDED if old == VISIBLE and hidden else old
                assert new == expected, (plain.clip, t, x, y)
                changed += new != old
                near += inside and 0.05 < cover[row, column] < 0.95
    assert changed > 40
    assert near > (0 if kind == "stills" else 5)  # soft edges were met, so the rule at 0.5 was put to the test


def test_everything_else_stays():
    reader = MemoryReader()
    before, index = reader.index("test"), Occluded(reader, 0.3).index("test")
    assert index.name == "memory/test+occluded0.3-drawn[clip-box]"
    assert box_rule(index.name) == index.box_rule == "clip-box"
    assert (index.split, index.skeleton, index.scoring) == (before.split, before.skeleton, None)
    for options, mark in [
        ({"regime": "P"}, "0.25P-drawn"), ({"texture": "patches", "seed": 3}, "0.25-patches-seed3"),
        ({"size": (0.4, 1.0), "follow": True}, "0.25-drawn-size0.4to1-follow"),
        ({"probability": 0.5}, "0.25-drawn-probability0.5"),
    ]:  # fmt: skip
        assert Occluded(reader, **options).index("val").name == f"memory/val+occluded{mark}[clip-box]"
    assert any((new.visible != old.visible).any() for old, new in zip(before.tracks, index.tracks, strict=True))
    for old, new in zip(before.tracks, index.tracks, strict=True):
        for name in ("joints", "boxes", "norms", "uid"):
            np.testing.assert_array_equal(getattr(new, name), getattr(old, name))
        assert (new.clip, new.cluster, new.fps, new.image_size) == (old.clip, old.cluster, old.fps, old.image_size)
        lowered = old.visible != new.visible
        assert (old.visible[lowered] == VISIBLE).all()
        assert (new.visible[lowered] == OCCLUDED).all()
        assert new.visible.dtype == np.uint8
        assert len(new.frames) == len(old.frames)
    check_index(index)
    with pytest.raises(BiposeError, match="share"):  # the name still begins with the data set's
        check_leak(replace(index, split="train"), before)


@pytest.mark.parametrize("texture", ["drawn", "patches"])
def test_a_pure_function_of_clip_and_seed(texture):
    def frames(seed=3, **options):
        return [
            t.frames
            for t in Occluded(Figures(4, 20, 120, 100), seed=seed, texture=texture, **options).index("test").tracks
        ]

    whole = [f.read(range(20)) for f in frames()]
    for source, all_at_once in zip(frames(), whole, strict=True):
        for t in (19, 3, 3, 0, 11):
            np.testing.assert_array_equal(source.read([t])[0], all_at_once[t])
        np.testing.assert_array_equal(source.read([7, 2])[1], all_at_once[2])
        again = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(again.read([5])[0], all_at_once[5])
        assert again.fingerprint() == source.fingerprint()
        assert source.read([]) == []
    other = [f.read(range(20)) for f in frames(seed=4)]
    assert any(
        not np.array_equal(a, b) for one, two in zip(whole, other, strict=True) for a, b in zip(one, two, strict=True)
    )


def paths(track):
    return [
        (p.mirrored, p.tint, *(getattr(p.track, n).tobytes() for n in ("centre", "scale", "angle", "present")))
        for p in track.frames.pieces
    ]


@pytest.mark.parametrize("texture", ["drawn", "patches", "cutouts"])
def test_other_clips_change_no_place_and_no_flag(texture, cutouts):
    options = {"cutouts": cutouts} if texture == "cutouts" else {"texture": texture}
    (alone,) = Occluded(Figures(1, 20, 120, 100), seed=3, **options).index("test").tracks
    first = Occluded(Figures(4, 20, 120, 100), seed=3, **options).index("test").tracks[0]
    assert paths(alone) == paths(first) != []
    np.testing.assert_array_equal(alone.visible, first.visible)
    if texture == "patches":  # alone, the parts can but be its own
        drawn = Occluded(Figures(1, 20, 120, 100), seed=3, texture="drawn").index("test").tracks[0]
        assert paths(drawn) == paths(first)
    else:
        np.testing.assert_array_equal(alone.frames.read([9])[0], first.frames.read([9])[0])


def test_fingerprints_tell_options_apart(cutouts, tmp_path):
    reader = Figures(2)
    more = write_cutouts(tmp_path, 2)
    options = [
        {}, {"hidden": 0.3}, {"seed": 1}, {"texture": "patches"}, {"regime": "P"}, {"size": (0.4, 1.0)},
        {"probability": 0.5}, {"cutouts": cutouts}, {"cutouts": more},
    ]  # fmt: skip
    prints = [[t.frames.fingerprint() for t in Occluded(reader, **o).index("test").tracks] for o in options]
    prints.append([t.frames.fingerprint() for t in Occluded(Figures(2, level=9)).index("test").tracks])
    prints.append([t.frames.fingerprint() for t in reader.index("test").tracks])
    assert len({tuple(p) for p in prints}) == len(prints)
    assert prints[0] == [t.frames.fingerprint() for t in Occluded(Figures(2)).index("test").tracks]
    assert len({fingerprint(Occluded(reader, **o).index("test")) for o in options}) == len(options)


def test_splits_do_not_share_things(tmp_path):
    seen = {split: {s.rgb.tobytes() for n in range(COUNT) if (s := Drawn(split, 0).sprite(n, -2))} for split in
            ("train", "val", "test")}  # fmt: skip
    assert all(len(s) > COUNT * 0.9 for s in seen.values())
    assert not seen["train"] & seen["val"] | seen["train"] & seen["test"] | seen["val"] & seen["test"]
    folder = write_cutouts(tmp_path, 10)
    shares = {split: len(Cutouts(folder, split)) for split in seen}
    assert shares == {"train": 6, "val": 2, "test": 2}


def test_patches_come_from_other_sources():
    index = Figures(8).index("train")
    things = Patches("train", 0, index.tracks)
    for track in index.tracks:
        numbers = things.fitting(track.cluster)
        np.testing.assert_array_equal(numbers % COUNT, np.arange(COUNT))
        assert all(things._patches[n].cluster != track.cluster for n in numbers)
    assert any((things.fitting(t.cluster) >= COUNT).any() for t in index.tracks)
    alone = Patches("train", 0, index.tracks[:1])
    assert len(alone.fitting("source0")) == COUNT  # nothing else is there
    assert not Patches("train", 0, [replace(t, frames=Plain(77, 20)) for t in index.tracks]).sprite(0, 0).rgb.max() > 77
    for n in range(COUNT):
        np.testing.assert_array_equal(things.alpha(n, 0), things.alpha(n + COUNT, 0))


def test_a_clip_more_changes_only_the_patches_that_it_gives():
    few, many = (Patches("train", 0, Figures(n).index("train").tracks) for n in (8, 9))
    new = {p.clip for p in many._patches} - {p.clip for p in few._patches}
    changed = [(a, b) for a, b in zip(few._patches[:COUNT], many._patches[:COUNT], strict=True) if a.clip != b.clip]
    assert len(changed) < COUNT / 2
    assert {b.clip for _, b in changed} <= new | {"walk/0008"}


def write_crowd(root: Path) -> list[Track]:
    """Pictures with three labelled persons each, and two without a file."""
    tracks = []
    for number in range(30):
        name = f"{number // 3:03d}.png"
        if number < 24:
            cv2.imwrite(str(root / name), np.full((160, 240, 3), 90, np.uint8))
        x, y = (number % 3) * 75 + 20, 60
        joints = np.random.default_rng(number).uniform((x, y), (x + 25, y + 40), (1, len(BODY), 2)).astype(np.float32)
        plain = Figures()._track(number)
        tracks.append(
            replace(
                plain, frames=FolderFrames(root, (name,)), joints=joints, image_size=(240, 160), uid=plain.uid[:1],
                visible=np.full((1, len(BODY)), VISIBLE, np.uint8), boxes=plain.boxes[:1], norms=plain.norms[:1],
                cluster=name,
            )
        )  # fmt: skip
    return tracks


@pytest.mark.parametrize("wrapped", [False, True])
def test_patches_show_nobody_and_pictures_that_are_there(tmp_path, wrapped):
    tracks = write_crowd(tmp_path)
    shown = [replace(t, frames=OccludedFrames(t.frames, Drawn("val", 0), [])) for t in tracks] if wrapped else tracks
    things = Patches("train", 1, shown)
    for patch in things._patches:
        x, y, w, h = patch.area
        assert 0 <= x <= x + w <= 240
        assert 0 <= y <= y + h <= 160
        number = next(n for n, t in enumerate(tracks) if t.clip == patch.clip)
        assert number < 24
        for track in tracks[number // 3 * 3 :][:3]:
            assert not ((track.joints[0] >= (x, y)) & (track.joints[0] < (x + w, y + h))).all(axis=1).any()
    assert things.sprite(3, 0).rgb.max() > 60


def test_tracks_without_a_visible_joint_are_left_alone():
    class Blank(Figures):
        def _track(self, number):
            track = super()._track(number)
            return replace(
                track, visible=np.where(track.visible == VISIBLE, number % 2, track.visible).astype(np.uint8)
            )

    index = Occluded(Blank(2)).index("train")
    assert [len(names) for names in index.skipped.values()] == [2]
    for old, new in zip(Blank(2).index("train").tracks, index.tracks, strict=True):
        np.testing.assert_array_equal(old.visible, new.visible)
        assert not new.frames.pieces


@pytest.mark.parametrize("strange", ["far", "huge picture", "nan norms", "one joint", "fps", "long"])
def test_strange_labels_do_no_harm(strange):
    class Strange(Figures):
        def _track(self, number):
            track = super()._track(number)
            if strange == "far":
                joints = track.joints.copy()
                joints[::2, 3] = 1e30
                joints[1::2, 3] = -3e38
                return replace(track, joints=joints)
            if strange == "huge picture":
                return replace(track, image_size=(10**9, 10**9), norms=track.norms * np.float32(1e20))
            if strange == "nan norms":
                return replace(track, norms=np.full_like(track.norms, np.nan))
            if strange == "one joint":
                visible = np.zeros_like(track.visible)
                visible[4, 7] = VISIBLE
                return replace(track, visible=visible)
            return replace(track, fps=1e9) if strange == "fps" else track

    index = Occluded(Strange(2, 600 if strange == "long" else 12)).index("train")
    for track in index.tracks:
        (image,) = track.frames.read([3])
        assert image.shape == (SIZE[1], SIZE[0], 3)


def test_the_sources_own_arrays_are_not_touched():
    reader = Figures(3, level=200)
    for track in Occluded(reader, 0.6).index("test").tracks:
        track.frames.read(range(20))
        assert (track.frames.source.image == 200).all()


def test_later_pieces_are_in_front_and_soft_edges_add_up():
    things = Drawn("train", 0)
    boards = [n for n, kind in enumerate(things._kinds) if kind == "panel"][:2]
    still = OccluderTrack.still((40.3, 30.6), 1)
    pieces = [Piece(n, -1, flipped, (1.0, 1.0, 1.0), still) for n, flipped in zip(boards, (False, True), strict=True)]
    both = OccludedFrames(Plain(0, 1), things, pieces)
    front = OccludedFrames(Plain(0, 1), things, pieces[1:])
    opaque = front.coverage(0, SIZE) > 0.999
    assert opaque.sum() > 200
    assert np.abs(both.read([0])[0][opaque].astype(int) - front.read([0])[0][opaque]).max() <= 1
    single = [OccludedFrames(Plain(0, 1), things, [p]).coverage(0, SIZE) for p in pieces]
    np.testing.assert_allclose(both.coverage(0, SIZE), 1 - (1 - single[0]) * (1 - single[1]), atol=1e-12)
    # The same pixel has the same coverage in a picture of another size.
    np.testing.assert_array_equal(both.coverage(0, (50, 33)), both.coverage(0, SIZE)[:33, :50])


@pytest.mark.parametrize("mirrored", [False, True])
def test_joints_meet_the_alpha_that_is_painted(mirrored):
    """One number per pixel, whether it is asked for alone or painted with its neighbours."""
    things, rng = Drawn("train", 0), np.random.default_rng(0)
    T = 12
    path = OccluderTrack(
        rng.uniform(-10, 100, (T, 2)), rng.uniform(0.3, 1.2, T), rng.uniform(-3, 3, T), rng.random(T) < 0.9
    )
    for number in range(0, COUNT, 7):
        piece = Piece(number, -1, mirrored, (1.0, 1.0, 1.0), path)
        at = np.stack(np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1])), axis=-1).reshape(1, -1, 2).repeat(T, axis=0)
        found = alpha_at(things, piece, at).reshape(T, SIZE[1], SIZE[0])
        for t in range(T):
            met, expected = cover(things, piece, t, SIZE), np.zeros((SIZE[1], SIZE[0]), np.uint8)
            if met is not None:
                expected[met.rows, met.columns] = met.alpha
            np.testing.assert_array_equal(found[t], expected)
    far = np.full((T, 2, 2), -(10**17))
    assert not alpha_at(things, Piece(0, 0, mirrored, (1.0, 1.0, 1.0), path), far).any()


def test_half_transparent_parts_hide_nothing(cutouts):
    """The cut-out's right half has alpha 100 of 255: it is drawn, but a joint under it stays visible."""
    things = Cutouts(cutouts, "test")
    piece = Piece(0, 0, False, (1.0, 1.0, 1.0), OccluderTrack.still((48, 40), 1))
    cover = OccludedFrames(Plain(255, 1), things, [piece]).coverage(0, (96, 80))
    assert cover[40, 30] == 1
    assert 0.3 < cover[40, 85] < 0.5


def test_what_bad_cutouts_get_told(tmp_path):
    def refused(said):
        with pytest.raises(BiposeError, match=said) as caught:
            Occluded(Figures(1), cutouts=tmp_path / "set").index("train")
        assert "\n" not in str(caught.value)

    refused("cannot read the folder of cut-outs")
    (tmp_path / "set").mkdir()
    refused("holds no PNG file")
    path = tmp_path / "set" / "a.PNG"
    good = write_cutouts(tmp_path / "good") / "disc0.png"
    header = good.read_bytes()[:16]
    for content, said in [
        (b"", "not a PNG"), (b"\xff\xd8\xff", "not a PNG"), (good.read_bytes()[:200], "truncated PNG"),
        (header + (60000).to_bytes(4, "big") * 2 + b"x" * 40, "60000 x 60000 pixels"), (header + b"\0" * 40, "0 x 0 pixels"),
        (good.read_bytes()[:60] + b"\0\0" + good.read_bytes()[62:], "damaged PNG"),
    ]:  # fmt: skip
        path.write_bytes(content)
        refused(said)
    cv2.imwrite(str(tmp_path / "set" / "rgb.png"), np.zeros((5, 5, 3), np.uint8))
    path.unlink()
    refused("has no alpha channel")
    cv2.imwrite(str(tmp_path / "set" / "rgb.png"), np.full((5, 5, 4), 127, np.uint8))
    refused("would hide nothing")
    (tmp_path / "set" / "rgb.png").unlink()
    (tmp_path / "set" / "folder.png").mkdir()
    refused("cannot read the cut-out")


def test_sixteen_bit_and_tiny_cutouts(tmp_path):
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((6, 1, 4), 65535, np.uint16))
    assert load_cutout(tmp_path / "deep.png").tolist() == [[[255] * 4]] * 6
    things = Cutouts(tmp_path, "val")
    assert things.sprite(0, -2).alpha.shape == (32 + 2 * MARGIN, 5 + 2 * MARGIN)
    assert Occluded(Figures(2), cutouts=tmp_path).index("val").tracks


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": 0.0}, {"hidden": 1.0}, {"hidden": math.nan}, {"probability": 1.5}, {"probability": math.nan},
        {"regime": "mixed"}, {"texture": "grey"}, {"size": (0.5, 0.2)}, {"size": (0.0, 0.2)}, {"size": (0.5, math.nan)},
        {"seed": -1}, {"texture": "drawn", "cutouts": "somewhere"},
    ],
)  # fmt: skip
def test_arguments_are_checked(options):
    with pytest.raises(BiposeError, match="occluded: "):
        Occluded(Figures(1), **options)


def test_through_the_data_module():
    """Flags and pixels reach the batches, with workers as without."""
    batches = []
    for workers in (0, 2):
        data = PoseDataModule(
            Occluded(MemoryReader(3), 0.4), size=(48, 64), clips=ClipSampling(4), batch_size=3, num_workers=workers
        )
        batches.append([next(iter(data.train_dataloader())), *data.test_dataloader()])
    for one, two in zip(*batches, strict=True):
        assert (one.images == two.images).all()
        assert (one.visible == two.visible).all()
    plain = next(iter(PoseDataModule(MemoryReader(3), size=(48, 64), batch_size=3).test_dataloader()))
    dark = batches[0][1]
    assert (dark.joints == plain.joints).all()
    assert ((dark.visible == OCCLUDED) & (plain.visible == VISIBLE)).any()
    assert (dark.images != plain.images).any()


@pytest.mark.real_data
def test_real_clips(real_data):
    reader = JHMDB(real_data / "jhmdb_mini")

    indexes = {split: reader.index(split) for split in ("train", "test")}

    class Once:
        skeleton = reader.skeleton

        def index(self, split):
            return indexes[split]

    found = occlusion_statistics(*(Occluded(Once(), seed=s).index(sp) for s in range(4) for sp in indexes))
    assert abs(found["hidden"] - 0.25) < 0.06
    assert 9 <= found["median"] <= 14
    assert 23 <= found["p90"] <= 32
    assert 0.66 < found["touching"] < 0.82
    assert min(found[f"share_{r}"] for r in "PFB") > 0.12
    for regime, least in {"P": 0.85, "F": 0.85, "B": 0.9, "N": 0.6}.items():
        alone = occlusion_statistics(
            *(Occluded(Once(), regime=regime, seed=s).index(sp) for s in (0, 1) for sp in indexes)
        )
        assert alone[f"share_{regime}"] > least
    index = Occluded(Once(), texture="patches").index("test")
    for old, new in zip(indexes["test"].tracks, index.tracks, strict=True):
        (before,), (after,) = old.frames.read([8]), new.frames.read([8])
        cover = new.frames.coverage(8, old.image_size)
        np.testing.assert_array_equal(before[cover == 0], after[cover == 0])
        x, y = np.floor(new.joints[8] + 0.5).astype(int).T
        inside = (x >= 0) & (y >= 0) & (x < 320) & (y < 240)
        np.testing.assert_array_equal(new.visible[8][inside] == OCCLUDED, cover[y[inside], x[inside]] >= 0.5)
