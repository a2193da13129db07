"""Which frames and which pixels."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_index import BODY, COLOURS, MemoryFrames, make_index, make_track
from test_transforms import centroid

from bipose_lit.datasets.clips import ClipDataset, ClipSampling, Windows, check_index, draw_view, fingerprint
from bipose_lit.datasets.pixel import ColourJitter, Occluders
from bipose_lit.datasets.transforms import Augmentation, generator
from bipose_lit.types import OCCLUDED, BiposeError


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 4), st.integers(0, 11))
def test_windows_cover_every_frame(frames: int, length: int, stride: int, overlap: int) -> None:
    sampling = ClipSampling(length, stride, eval="windows", overlap=min(overlap, length - 1))
    windows = list(sampling.windows(frames, whole=False))
    assert set(np.concatenate(windows)) == set(range(frames))
    for window in windows:
        assert (np.diff(window) == stride).all()
        assert len(window) == min(length, -(-(frames - window[0] % stride) // stride))
    whole = list(sampling.windows(frames, whole=True))
    assert sorted(np.concatenate(whole)) == list(range(frames))


@given(st.integers(1, 40), st.one_of(st.none(), st.integers(1, 12)), st.integers(1, 4), st.integers(0, 99))
def test_random_windows_are_as_long_as_can_be(frames: int, length: int | None, stride: int, seed: int) -> None:
    window = ClipSampling(length, stride).random(frames, np.random.default_rng(seed))
    assert len(window) == min(length or frames, -(-frames // stride))
    assert (np.diff(window) == stride).all()
    assert window[0] >= 0
    assert window[-1] < frames


def test_starts_are_uniform() -> None:
    rng = np.random.default_rng(0)
    starts = np.bincount([ClipSampling(4).random(9, rng)[0] for _ in range(3000)])
    assert len(starts) == 6
    assert starts.min() > 400


def test_reversed_windows() -> None:
    data = ClipDataset(make_index((6, 9)), (48, 48), sampling=ClipSampling(4, reverse=1.0), train=True)
    sample = data[0, 1]
    assert (np.diff(sample.frame) == -1).all()
    forward = ClipDataset(make_index((6, 9)), (48, 48), sampling=ClipSampling(4), train=True)[0, 1]
    np.testing.assert_array_equal(sample.images, forward.images[::-1])  # type: ignore[index]
    np.testing.assert_array_equal(sample.joints, forward.joints[::-1])


def test_a_still_is_a_clip_of_one_frame() -> None:
    data = ClipDataset(make_index((1,)), (48, 64))
    assert data[0].images is not None
    assert data[0].images.shape == (1, 3, 64, 48)


@pytest.mark.parametrize("rule", ["clip-box", "frame-box"])
def test_pixels_and_joints_agree_in_every_frame(rule: str) -> None:
    track = make_track(0, 40, (320, 240), rule)  # more than one read
    # Blobs apart from each other, so that each one's centre can be measured.
    base = np.array([[80, 60], [240, 60], [80, 180], [240, 180], [160, 120]], np.float32)
    joints = base[None] + np.linspace(0, 20, 40, dtype=np.float32)[:, None, None] * [[0.37, 0.21]]
    joints = joints.astype(np.float32)
    boxes = np.tile(np.array([40, 30, 260, 200], np.float32), (40, 1))
    if rule == "frame-box":
        boxes[:, 0] += np.arange(40) * 0.3
    track = replace(track, joints=joints, boxes=boxes, frames=MemoryFrames(joints, (320, 240)))
    data = ClipDataset(
        replace(make_index((1,)), tracks=(track,)),
        (160, 128),
        train=True,
        augmentation=Augmentation(scale=0.1, rotation=20, rotation_probability=1, shift=0.02, flip=0.5),
    )
    flips = 0
    for epoch in range(3):
        sample = data[epoch, 0]
        view = data.view(epoch, 0, 0)
        flips += view.flip
        assert sample.images is not None
        colours = COLOURS[BODY.flip] if view.flip else COLOURS
        for t in (0, 31, 32, 39):
            for k in (0, 1, 2, 3):
                found = centroid(sample.images[t].transpose(1, 2, 0), colours[k])
                assert np.abs(found - sample.joints[t, k]).max() < 0.1, (t, k)
    assert 0 < flips < 3


def test_samples_are_a_function_of_seed_epoch_and_item() -> None:
    def make(seed: int) -> ClipDataset:
        return ClipDataset(
            make_index(), (48, 48), 1.25, ClipSampling(4), True, Augmentation(), ColourJitter(), Occluders(1.0), seed
        )

    one, two, other = make(1), make(1), make(2)
    for key in [(5, 2), (0, 0), (5, 2)]:
        np.testing.assert_array_equal(one[key].images, two[key].images)  # type: ignore[arg-type]
        np.testing.assert_array_equal(one[key].joints, two[key].joints)
    assert not np.array_equal(one[0, 1].joints, one[1, 1].joints)
    assert not np.array_equal(one[0, 1].joints, other[0, 1].joints)


def test_evaluation_is_unaugmented_and_complete() -> None:
    index = make_index((6, 9, 4), "val")
    data = ClipDataset(index, (48, 48), augmentation=Augmentation(), pixels=ColourJitter(), sampling=ClipSampling(3))
    assert [len(data[i]) for i in range(len(data))] == [6, 9, 4]
    assert np.array_equal(data[0, 1].images, data[7, 1].images)  # type: ignore[arg-type]
    np.testing.assert_array_equal(data[1].uid, index.tracks[1].uid)
    parts = ClipDataset(index, (48, 48), sampling=ClipSampling(4, eval="windows", overlap=1))
    uids = {int(u) for i in range(len(parts)) for u in parts[i].uid}
    assert uids == {int(u) for t in index.tracks for u in t.uid}


def test_occluders_hide_visible_joints_only() -> None:
    data = ClipDataset(make_index((30,) * 4), (64, 64), train=True, occluders=Occluders(1.0, 3, (0.3, 0.5)))
    plain = ClipDataset(make_index((30,) * 4), (64, 64), train=True)
    newly = 0
    for i in range(4):
        a, b = data[0, i], plain[0, i]
        changed = a.visible != b.visible
        newly += int(changed.sum())
        assert (a.visible[changed] == OCCLUDED).all()
        np.testing.assert_array_equal(a.joints, b.joints)
    assert newly > 0


def test_finite_views() -> None:
    augmentation = Augmentation()
    assert draw_view(augmentation, 0, 0, 5).flip is False
    assert draw_view(augmentation, 0, 1, 5).flip is True
    assert draw_view(augmentation, 0, 2, 5) == draw_view(augmentation, 0, 2, 5)
    assert draw_view(augmentation, 0, 2, 5) != draw_view(augmentation, 0, 2, 6)
    unmirrored = Augmentation(flip=0)
    assert not any(draw_view(unmirrored, 0, v, 5).flip for v in range(20))
    assert len({draw_view(unmirrored, 0, v, 5) for v in range(20)}) == 20
    assert draw_view(None, 0, 1, 5).flip is True
    data = ClipDataset(make_index(), (48, 48), train=True, augmentation=augmentation, views=3)
    drawn = {data.view(e, 0, 0) for e in range(40)}
    assert drawn == {draw_view(augmentation, 0, v, 0) for v in range(3)}


def test_unusable_indexes_are_named() -> None:
    index = make_index()
    with pytest.raises(BiposeError, match=r"no clip in the train split \(left out: no joint: 2\)"):
        check_index(replace(index, tracks=(), skipped={"no joint": ["a", "b"]}))
    bad = index.tracks[1].boxes.copy()
    bad[2] = np.nan
    with pytest.raises(BiposeError, match="clip001 frame 2 has no usable box"):
        check_index(replace(index, tracks=(index.tracks[0], replace(index.tracks[1], boxes=bad))))
    joints = index.tracks[0].joints.copy()
    joints[0, 0] = np.inf
    with pytest.raises(BiposeError, match="not finite"):
        check_index(replace(index, tracks=(replace(index.tracks[0], joints=joints),)))
    with pytest.raises(BiposeError, match="ids repeat"):
        check_index(replace(index, tracks=(index.tracks[0], index.tracks[0])))


def test_fingerprints_notice_every_change() -> None:
    index = make_index()
    track = index.tracks[0]
    joints = track.joints.copy()
    joints[0, 0, 0] += 1e-3
    changed = [
        index,
        replace(index, name="other"),
        replace(index, tracks=index.tracks[:2]),
        replace(index, tracks=(replace(track, joints=joints), *index.tracks[1:])),
        replace(index, tracks=(replace(track, frames=MemoryFrames(track.joints, (9, 9))), *index.tracks[1:])),
    ]
    assert len({fingerprint(i) for i in changed}) == len(changed)
    assert fingerprint(index) == fingerprint(make_index())
    assert generator(1, 2).random() == generator(1, 2).random()


@pytest.mark.parametrize(
    "wrong", [{"length": 0}, {"stride": 0}, {"length": 3, "overlap": 3}, {"eval": "windows"}, {"reverse": 2.0}]
)
def test_impossible_samplings_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"length|overlap|reverse"):
        ClipSampling(**wrong)


def half_labelled(length: int, labelled: list[int]):
    index = make_index([length])
    visible = np.zeros_like(index.tracks[0].visible)
    visible[labelled] = 2
    return replace(index, tracks=(replace(index.tracks[0], visible=visible),))


@pytest.mark.parametrize(("length", "stride"), [(1, 1), (2, 1), (3, 2), (None, 1)])
def test_training_windows_hold_a_labelled_frame(length: int | None, stride: int) -> None:
    index = half_labelled(9, [4])
    windows = Windows(index, ClipSampling(length, stride), True, 0)
    drawn = [windows[epoch, 0][1] for epoch in range(60)]
    assert all(4 in frames for frames in drawn)
    if length in (2, 3):
        assert len({tuple(frames) for frames in drawn}) == length, "every such window occurs"
    every = Windows(index, ClipSampling(length, stride, train="all"), True, 0)
    assert all(4 in every[0, i][1] for i in range(len(every)))
    seen = np.concatenate([w for _, w in Windows(index, ClipSampling(length, stride), False, 0)._fixed])
    assert sorted(set(seen)) == list(range(9)), "evaluation covers all"


def test_a_label_that_the_stride_steps_over_does_no_harm() -> None:
    windows = Windows(half_labelled(5, [1]), ClipSampling(None, 2), True, 0)
    assert windows[0, 0][1].tolist() == [0, 2, 4]
