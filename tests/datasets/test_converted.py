"""Conversion between skeletons by name: what moves, what is absent, what is refused, and that it commutes with a flip."""

import itertools
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import yaml
from hypothesis import given
from memory_index import MemoryFrames, MemoryReader, make_track
from tiny import write_jhmdb, write_penn

from bipose_lit.datamodule import PoseDataModule, check_leak
from bipose_lit.datasets.clips import ClipSampling, check_index, fingerprint
from bipose_lit.datasets.converted import Converted, convert, joint_pairs
from bipose_lit.datasets.index import PoseIndex, Reader
from bipose_lit.datasets.jhmdb import JHMDB
from bipose_lit.datasets.penn import PennAction
from bipose_lit.metrics.summary import box_rule
from bipose_lit.skeletons import COCO, H36M, MPII, PENN_ACTION, SKELETONS, Skeleton
from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE, BiposeError


class Score:
    def score(self, predictions):
        return {"ap": 1.0}

    def fingerprint(self):
        return "score"


class Given:
    """Tracks of any skeleton, random but for their sizes."""

    official = True

    def __init__(self, skeleton: Skeleton, clips: int = 3, frames: int = 4, visible: int | None = None) -> None:
        self.skeleton, self.clips, self.frames, self.visible = skeleton, clips, frames, visible

    def index(self, split: str) -> PoseIndex:
        K, first = len(self.skeleton), {"train": 0, "val": 50, "test": 90}[split]
        tracks = []
        for number in range(first, first + self.clips):
            rng = np.random.default_rng(number)
            visible = rng.integers(0, 3, (self.frames, K)).astype(np.uint8)
            visible[0, :] = VISIBLE
            if self.visible is not None:
                visible[:] = self.visible
            joints = rng.uniform(5, 100, (self.frames, K, 2)).astype(np.float32)
            joints[visible == ABSENT] = 0
            track = make_track(number, self.frames)
            tracks.append(
                replace(
                    track, joints=joints, visible=visible, frames=MemoryFrames(joints[:, :5], (160, 120)),
                    joints_3d=rng.normal(0, 500, (self.frames, K, 3)).astype(np.float32),
                    detected=joints + np.float32(1.5),
                )
            )  # fmt: skip
        name = f"{self.skeleton.name}/{split}[clip-box]"
        return PoseIndex(name, self.skeleton, "clip-box", split, tuple(tracks), {"odd": ["x"]}, Score())


def test_by_name():
    reader = Given(PENN_ACTION)
    before, index = reader.index("test"), Converted(reader, "coco").index("test")
    assert index.skeleton is COCO
    assert index.name == "penn_action/test>coco12[clip-box]"
    assert box_rule(index.name) == index.box_rule == "clip-box"
    assert index.scoring is None
    assert index.skipped == {
        "odd": ["x"],
        "joints of penn_action that coco lacks, dropped": ["head"],
        "joints of coco that penn_action lacks, absent": ["nose", "left_eye", "right_eye", "left_ear", "right_ear"],
    }
    for old, new in zip(before.tracks, index.tracks, strict=True):
        for k, joint in enumerate(COCO.joints):
            if joint in PENN_ACTION.joints:
                s = PENN_ACTION.index(joint)
                np.testing.assert_array_equal(new.joints[:, k], old.joints[:, s])
                np.testing.assert_array_equal(new.visible[:, k], old.visible[:, s])
                np.testing.assert_array_equal(new.joints_3d[:, k], old.joints_3d[:, s])
                np.testing.assert_array_equal(new.detected[:, k], old.detected[:, s])
            else:
                assert not new.visible[:, k].any()
                assert not new.joints[:, k].any()
                assert not new.joints_3d[:, k].any()
                assert not new.detected[:, k].any()
        for name in ("boxes", "norms", "uid"):
            np.testing.assert_array_equal(getattr(new, name), getattr(old, name))
        assert (new.clip, new.cluster, new.fps, new.image_size) == (old.clip, old.cluster, old.fps, old.image_size)
        np.testing.assert_array_equal(new.frames.read([1])[0], old.frames.read([1])[0])
        assert (new.joints.dtype, new.visible.dtype) == (np.float32, np.uint8)
        assert (new.joints_3d.dtype, new.detected.dtype) == (np.float32, np.float32)
    check_index(index)
    assert fingerprint(index) != fingerprint(before)


@pytest.mark.parametrize(("one", "two"), [*itertools.permutations(SKELETONS.values(), 2)], ids=lambda s: s.name)
def test_there_and_back_keeps_what_they_share(one, two):
    reader = Given(one)
    back = Converted(Converted(reader, two.name), one.name).index("train")
    common = np.array([joint in two.joints for joint in one.joints])
    assert back.name == f"{one.name}/train>{two.name}{common.sum()}>{one.name}{common.sum()}[clip-box]"
    for old, new in zip(reader.index("train").tracks, back.tracks, strict=True):
        np.testing.assert_array_equal(new.joints[:, common], old.joints[:, common])
        np.testing.assert_array_equal(new.visible[:, common], old.visible[:, common])
        assert not new.visible[:, ~common].any()


def test_rename_and_midpoints():
    reader = Given(COCO)
    options = {
        "rename": {"nose": "head_top"},
        "midpoints": {"pelvis": ("left_hip", "right_hip"), "thorax": ("right_shoulder", "left_shoulder")},
    }
    before, index = reader.index("val"), Converted(reader, "mpii", **options).index("val")
    for old, new in zip(before.tracks, index.tracks, strict=True):
        np.testing.assert_array_equal(new.joints[:, MPII.index("head_top")], old.joints[:, 0])
        a, b, k = COCO.index("left_hip"), COCO.index("right_hip"), MPII.index("pelvis")
        least = np.minimum(old.visible[:, a], old.visible[:, b])
        np.testing.assert_array_equal(new.visible[:, k], least)
        seen = least != ABSENT
        np.testing.assert_allclose(new.joints[seen, k], (old.joints[seen, a] + old.joints[seen, b]) / 2, rtol=1e-6)
        assert not new.joints[~seen, k].any()
        np.testing.assert_allclose(
            new.joints_3d[:, k], (old.joints_3d[:, a] + old.joints_3d[:, b]) / 2, rtol=1e-5, atol=1e-4
        )
    assert index.skipped["joints of mpii that coco lacks, absent"] == ["upper_neck"]
    assert "nose" not in index.skipped["joints of coco that mpii lacks, dropped"]


def test_a_midpoint_is_as_visible_as_its_worse_end():
    pairs = np.array([[0, 1]])
    joints = np.array([[[2.0, 4.0], [4.0, 8.0]]], np.float32)
    for a, b in itertools.product((ABSENT, OCCLUDED, VISIBLE), repeat=2):
        places, flags = convert(joints, np.array([[a, b]], np.uint8), pairs)
        assert flags.tolist() == [[min(a, b)]]
        assert places.tolist() == ([[[3.0, 6.0]]] if min(a, b) else [[[0.0, 0.0]]])


def test_a_renamed_joint_gives_up_its_name():
    names = ("head", "neck", "tail")
    one = Skeleton("one", names, (), (), torso=("head", "neck"))
    assert joint_pairs(one, one, {"head": "neck"})[:, 0].tolist() == [-1, 0, 2]
    assert joint_pairs(one, one, {"head": "neck", "neck": "head"})[:, 0].tolist() == [1, 0, 2]
    assert joint_pairs(one, one, {}, {"neck": ("head", "tail")}).tolist() == [[0, 0], [0, 2], [2, 2]]


RULES = {
    ("coco", "mpii"): ({"nose": "head_top"}, {"pelvis": ("left_hip", "right_hip")}),
    ("mpii", "coco"): ({"head_top": "nose"}, {}),
    ("h36m", "jhmdb"): (
        {"upper_neck": "neck"},
        {"belly": ("pelvis", "thorax"), "face": ("upper_neck", "head_top")},
    ),
    ("coco", "h36m"): (
        {"left_ear": "left_hip", "right_ear": "right_hip"},
        {"thorax": ("right_shoulder", "left_shoulder")},
    ),
}


@given(st.sampled_from([*itertools.permutations(SKELETONS, 2)]), st.booleans(), st.integers(0, 2**32 - 1))
def test_converting_commutes_with_a_flip(names, rules, seed):
    source, target = (SKELETONS[n] for n in names)
    pairs = joint_pairs(source, target, *(RULES.get(names, ({}, {})) if rules else ({}, {})))
    rng = np.random.default_rng(seed)
    joints = rng.uniform(-50, 400, (3, len(source), 2)).astype(np.float32)
    visible = rng.integers(0, 3, (3, len(source))).astype(np.uint8)

    def flipped(places, flags, skeleton):
        moved = places[:, skeleton.flip].copy()
        moved[..., 0] = 319 - moved[..., 0]
        moved[flags[:, skeleton.flip] == ABSENT] = 0
        return moved, flags[:, skeleton.flip]

    after = flipped(*convert(joints, visible, pairs), target)
    before = convert(*flipped(joints, visible, source), pairs)
    np.testing.assert_array_equal(before[1], after[1])
    np.testing.assert_allclose(before[0], after[0], atol=1e-3)


def test_one_side_only_is_refused():
    with pytest.raises(BiposeError, match="left_eye, right_eye, left_ankle, right_ankle would not survive a flip"):
        joint_pairs(MPII, COCO, {"left_ankle": "left_eye"})
    with pytest.raises(BiposeError, match="would not survive a flip"):
        joint_pairs(COCO, MPII, {"left_ear": "head_top"})
    with pytest.raises(BiposeError, match="would not survive a flip"):
        joint_pairs(COCO, MPII, {}, {"pelvis": ("left_hip", "left_shoulder")})
    right_arm = Skeleton("arm", ("right_elbow", "right_wrist"), (), (), torso=("right_elbow", "right_wrist"))
    assert joint_pairs(COCO, right_arm)[:, 0].tolist() == [8, 10]  # a skeleton that cannot be flipped anyway


def sided(name, joints, swaps=()):
    return Skeleton(name, joints, swaps, (), torso=(joints[0], joints[1]))


EYES = ("nose", "left_eye", "right_eye")


@pytest.mark.parametrize(
    ("source", "target", "rename"),
    [
        (sided("bare", EYES), COCO, {"left_eye": "right_eye"}),
        (sided("bare", EYES), COCO, {"left_eye": "right_eye", "right_eye": "left_eye"}),
        (sided("bare", EYES), COCO, {"left_eye": "left_ear"}),
        (COCO, sided("bare", EYES), {"left_ear": "left_eye"}),
        (COCO, sided("bare", EYES), {"left_eye": "right_eye"}),
        (COCO, sided("bare", EYES), {"left_eye": "right_eye", "right_eye": "left_eye"}),
        (COCO, sided("bare", EYES), {"left_eye": "nose"}),
        (sided("one", ("nose", "left_eye")), COCO, {"left_eye": "right_eye"}),
        (sided("one", ("nose", "left_eye")), COCO, {"nose": "right_eye"}),
        (sided("one", ("nose", "left_eye")), sided("other", ("nose", "right_eye")), {"left_eye": "right_eye"}),
    ],
)
def test_no_skeleton_hides_a_change_of_sides(source, target, rename):
    with pytest.raises(BiposeError, match="would not survive a flip"):
        joint_pairs(source, target, rename)


def test_sides_by_swap_or_by_name_convert():
    bare, one = sided("bare", EYES), sided("one", ("nose", "left_eye"))
    assert joint_pairs(bare, COCO)[:3, 0].tolist() == [0, 1, 2]
    assert joint_pairs(COCO, bare)[:, 0].tolist() == [0, 1, 2]
    assert joint_pairs(one, COCO)[:3, 0].tolist() == [0, 1, -1]
    short = sided("short", ("nose", "l", "r"), (("l", "r"),))
    assert joint_pairs(short, COCO, {"l": "left_eye", "r": "right_eye"})[:3, 0].tolist() == [0, 1, 2]
    assert joint_pairs(COCO, short, {"left_ear": "l", "right_ear": "r"})[:, 0].tolist() == [0, 3, 4]
    with pytest.raises(BiposeError, match="would not survive a flip"):
        joint_pairs(short, COCO, {"l": "left_eye"})
    assert joint_pairs(COCO, bare, {}, {"nose": ("right_ear", "left_ear")})[0].tolist() == [4, 3]
    assert (
        joint_pairs(COCO, bare, {}, {"left_eye": ("left_ear", "nose"), "right_eye": ("nose", "right_ear")})[1, 0] == 3
    )


def test_a_source_with_one_side_of_a_joint_converts():
    index = Converted(MemoryReader(2), "coco").index("train")  # has a left ankle and a right hip alone
    labelled = {COCO.joints[k] for k in np.flatnonzero(index.tracks[0].visible.any(axis=0))}
    assert labelled == {"left_shoulder", "right_shoulder", "left_ankle", "right_hip"}


def test_equal_joints_change_nothing(tmp_path):
    index = Converted(Given(COCO), "coco").index("test")
    assert index.name == "coco/test[clip-box]"
    assert index.scoring is not None
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "joints": [*COCO.joints[::-1]]}))
    other = Converted(Given(COCO), str(path))
    assert other.skeleton.name == "mine"
    # Reversed in order: another skeleton, so the set's own measure does not fit.
    assert other.index("test").scoring is None
    np.testing.assert_array_equal(other.index("test").tracks[0].joints[:, ::-1], index.tracks[0].joints)


def test_what_the_user_gets_told(tmp_path):
    reader = Given(COCO)
    nothing = tmp_path / "cow.yaml"
    nothing.write_text("name: cow\njoints: [tail, horn]\ntorso: [tail, horn]\n")
    with pytest.raises(BiposeError, match=r"coco to cow: no joint in common \(nose, .*; tail, horn\)"):
        Converted(reader, str(nothing))
    with pytest.raises(BiposeError, match="'cooc' is unknown"):
        Converted(reader, "cooc")
    for rename, midpoints, said in [
        ({"nos": "head_top"}, {}, "coco has no joint 'nos'"),
        ({"nose": "head"}, {}, "mpii has no joint 'head'"),
        ({}, {"hips": ("left_hip", "right_hip")}, "mpii has no joint 'hips'"),
        ({}, {"pelvis": ("left_hip", "hip")}, "coco has no joint 'hip'"),
        ({}, {"pelvis": ("left_hip",)}, "between two joints"),
        ({"nose": "pelvis"}, {"pelvis": ("left_hip", "right_hip")}, "give pelvis more than once"),
        ({"nose": "pelvis", "left_eye": "pelvis"}, {}, "give pelvis more than once"),
    ]:
        with pytest.raises(BiposeError, match=said):
            Converted(reader, "mpii", rename, midpoints)
    only_face = Given(COCO, visible=ABSENT)
    with pytest.raises(BiposeError, match="no clip has a labelled joint that mpii has too"):
        Converted(only_face, "mpii").index("test")


def test_clips_without_a_joint_left_are_counted():
    class Faces(Given):
        def index(self, split):
            index = super().index(split)
            first = index.tracks[0]
            visible = np.where(np.arange(17) < 5, first.visible, ABSENT).astype(np.uint8)
            return replace(index, tracks=(replace(first, visible=visible), *index.tracks[1:]))

    index = Converted(Faces(COCO), "penn_action").index("train")
    assert [t.clip for t in index.tracks] == ["clip001", "clip002"]
    assert index.skipped["no joint of penn_action labelled"] == ["clip000"]


def test_leaks_are_still_found():
    """Both names begin with the data set's own, so its splits are told apart from another set's."""
    plain, other = Given(COCO).index("train"), Converted(Given(COCO), "mpii").index("train")
    with pytest.raises(BiposeError, match="share"):
        check_leak(plain, replace(other, split="val"))
    assert Converted(Given(COCO), "mpii").official is True
    assert Converted(MemoryReader(), "coco").official is False


def test_trains_on_one_set_and_scores_on_another(tmp_path):
    penn, jhmdb = write_penn(tmp_path / "penn"), write_jhmdb(tmp_path / "jhmdb")
    reader: Reader = Converted(PennAction(penn, box_rule="clip-box"), "jhmdb", rename={"head": "face"})
    data = PoseDataModule(
        reader, train_reader=JHMDB(jhmdb), size=(32, 32), clips=ClipSampling(4), batch_size=2, num_workers=0
    )
    data.setup("fit")
    assert data.num_joints == 15
    train, val = next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))
    assert train.joints.shape == (2, 4, 15, 2)
    assert val.joints.shape[2:] == (15, 2)
    absent = [reader.skeleton.index(name) for name in ("neck", "belly")]
    rest = [k for k in range(15) if k not in absent]
    assert not val.visible[:, :, absent].any()
    assert (val.visible[val.valid][:, rest] == VISIBLE).all()
    with pytest.raises(BiposeError, match="need one skeleton"):
        PoseDataModule(PennAction(penn), train_reader=JHMDB(jhmdb))


@pytest.mark.real_data
def test_real_labels(real_data):
    reader = PennAction(real_data / "penn_action_mini")
    index = Converted(reader, "h36m", {"head": "head_top"}, {"pelvis": ("left_hip", "right_hip")}).index("test")
    check_index(index)
    assert index.skeleton is H36M
    for old, new in zip(reader.index("test").tracks, index.tracks, strict=True):
        hips = [PENN_ACTION.index(f"{side}_hip") for side in ("left", "right")]
        both = (old.visible[:, hips] != ABSENT).all(axis=1)
        np.testing.assert_array_equal(new.visible[:, 0] != ABSENT, both)
        np.testing.assert_allclose(new.joints[both, 0], old.joints[both][:, hips].mean(axis=1), rtol=1e-5)
