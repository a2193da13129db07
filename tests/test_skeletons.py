"""Skeletons are consistent with themselves and with the data sets' documents."""

import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from memory_index import BODY, MemoryReader, make_index

from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.codecs.regression import RegressionCodec
from bipose_lit.compatibility import check_data
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.datasets.clips import fingerprint
from bipose_lit.geometry import flip_points
from bipose_lit.metrics.occlusion import STRATA
from bipose_lit.metrics.summary import alias
from bipose_lit.models.rebuild import instantiate
from bipose_lit.skeletons import (
    COCO,
    H36M,
    JHMDB,
    MPII,
    PENN_ACTION,
    POSETRACK18,
    RESERVED,
    SKELETONS,
    Skeleton,
    fields_of,
    find_skeleton,
    load_skeleton,
    make_skeleton,
    sides,
)
from bipose_lit.types import BiposeError


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_flip_is_an_involution_that_exchanges_sides(skeleton: Skeleton) -> None:
    flip = skeleton.flip
    np.testing.assert_array_equal(flip[flip], np.arange(len(skeleton)))
    for i, joint in enumerate(skeleton.joints):
        other = skeleton.joints[flip[i]]
        if joint.startswith("left_"):
            assert other == joint.replace("left_", "right_")
        elif not joint.startswith("right_"):
            assert other == joint


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_groups_partition_the_joints(skeleton: Skeleton) -> None:
    assert sorted(i for ids in skeleton.groups.values() for i in ids) == list(range(len(skeleton)))
    assert len(skeleton.groups["wrist"]) == 2


def test_sizes_and_orders() -> None:
    assert (len(COCO), len(MPII), len(PENN_ACTION), len(JHMDB)) == (17, 16, 13, 15)
    assert len(COCO.sigmas) == 17
    np.testing.assert_array_equal(COCO.flip, [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15])
    np.testing.assert_array_equal(MPII.flip, [5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10])


def test_mapping_by_name() -> None:
    mapping = PENN_ACTION.mapping_from(COCO)
    assert mapping[0] == -1
    assert all(COCO.joints[m] == j for m, j in zip(mapping[1:], PENN_ACTION.joints[1:], strict=True))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown"):
        Skeleton("x", ("a", "b"), (("a", "c"),), (), torso=("a", "b"))


@pytest.mark.parametrize(("one", "two"), [*itertools.permutations(SKELETONS.values(), 2)], ids=lambda s: s.name)
def test_conversions_by_name(one: Skeleton, two: Skeleton) -> None:
    there, back = two.mapping_from(one), one.mapping_from(two)
    common = set(one.joints) & set(two.joints)
    assert len(common) >= 12  # shoulders, elbows, wrists, hips, knees, ankles
    assert {two.joints[k] for k in np.flatnonzero(there >= 0)} == common
    for k in np.flatnonzero(there >= 0):
        assert one.joints[there[k]] == two.joints[k]
        assert back[there[k]] == k
        # Left stays left: a flip before the mapping equals one after it.
        assert one.flip[there[k]] == there[two.flip[k]]


def test_what_sets_share() -> None:
    def only(a: Skeleton, b: Skeleton) -> set[str]:
        return set(a.joints) - set(b.joints)

    assert only(COCO, MPII) == {"nose", "left_eye", "right_eye", "left_ear", "right_ear"}
    assert only(MPII, COCO) == {"pelvis", "thorax", "upper_neck", "head_top"}
    assert only(MPII, H36M) == set()
    assert only(H36M, MPII) == {"spine"}
    assert only(PENN_ACTION, COCO) == {"head"}
    assert only(POSETRACK18, COCO) == {"head_bottom", "head_top"}


def test_swaps_that_are_no_swaps_are_refused() -> None:
    joints = ("a", "b", "c")
    for swaps in ((("a", "b"), ("b", "c")), (("a", "a"),), (("a", "b"), ("b", "a"))):
        with pytest.raises(ValueError, match="swap"):
            Skeleton("x", joints, swaps, (), torso=("a", "b"))
    with pytest.raises(ValueError, match="repeated joints b"):
        Skeleton("x", ("a", "b", "b"), (), (), torso=("a", "b"))


GOOD = {
    "name": "hand",
    "joints": ["wrist", "left_tip", "right_tip"],
    "swaps": [["left_tip", "right_tip"]],
    "limbs": [["wrist", "left_tip"]],
    "torso": ["wrist", "left_tip"],
    "sigmas": [0.1, 1, 0.05],
}


def write(folder: Path, content: object) -> Path:
    path = folder / "hand.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_yaml(tmp_path: Path) -> None:
    skeleton = find_skeleton(write(tmp_path, GOOD))
    assert skeleton == find_skeleton(str(tmp_path / "hand.yaml"))
    assert (skeleton.name, skeleton.joints) == ("hand", ("wrist", "left_tip", "right_tip"))
    assert skeleton.sigmas == (0.1, 1.0, 0.05)
    np.testing.assert_array_equal(skeleton.flip, [0, 2, 1])
    least = {"name": "x", "joints": ["left_shoulder", "right_hip"]}
    assert load_skeleton(write(tmp_path, least)).torso == ("left_shoulder", "right_hip")
    assert load_skeleton(write(tmp_path, {**least, "limbs": None})).limbs == ()
    for name, skeleton in SKELETONS.items():
        assert find_skeleton(name) is skeleton
        fields = ("joints", "swaps", "limbs", "torso", "sigmas")
        content = {"name": name, **{f: _lists(getattr(skeleton, f)) for f in fields}}
        assert load_skeleton(write(tmp_path, content)) == skeleton


def test_what_metrics_names_hold_is_no_joint() -> None:
    assert {alias(name) for name in (*STRATA, "joint_mean")} == RESERVED
    for skeleton in SKELETONS.values():
        assert make_skeleton(fields_of(skeleton)) == find_skeleton(fields_of(skeleton)) == skeleton
        assert sides(skeleton.joints) == tuple(sorted(skeleton.swaps, key=lambda p: skeleton.index(p[0])))


def test_swaps_left_out_come_from_the_names(tmp_path: Path) -> None:
    bare = {k: v for k, v in GOOD.items() if k != "swaps"}
    assert load_skeleton(write(tmp_path, bare)).swaps == (("left_tip", "right_tip"),)
    assert load_skeleton(write(tmp_path, {**bare, "swaps": None})).swaps == (("left_tip", "right_tip"),)
    assert load_skeleton(write(tmp_path, {**bare, "swaps": []})).swaps == ()
    assert sides(("left_a", "b", "right_c", "right_d", "left_d")) == (("left_d", "right_d"),)


def test_another_flip_is_another_data_set(tmp_path: Path) -> None:
    one = find_skeleton({**GOOD, "swaps": [["left_tip", "right_tip"]]})
    other = find_skeleton({**GOOD, "swaps": []})
    third = find_skeleton({**GOOD, "torso": ["left_tip", "right_tip"]})
    index = make_index()
    assert len({fingerprint(replace(index, skeleton=s)) for s in (one, other, third)}) == 3

    class Mine(MemoryReader):
        def __init__(self, skeleton: Skeleton) -> None:
            super().__init__(2)
            self.skeleton = skeleton  # type: ignore[misc]

    PoseDataModule(Mine(one), train_reader=Mine(one))
    with pytest.raises(BiposeError, match="a flip exchanges others"):
        PoseDataModule(Mine(one), train_reader=Mine(other))


def test_fingerprints_of_the_packages_skeletons_stay() -> None:
    index = replace(make_index((2,)), skeleton=COCO)
    digest = hashlib.sha256(repr((index.name, COCO.joints, index.box_rule, index.split)).encode())
    for track in index.tracks:
        digest.update(repr((track.clip, track.cluster, track.image_size, track.fps, track.box_score)).encode())
        for array in (track.joints, track.visible, track.boxes, track.norms, track.uid):
            digest.update(repr((array.dtype.str, array.shape)).encode())
            digest.update(array.tobytes())
        digest.update(track.frames.fingerprint().encode())
    assert fingerprint(index) == digest.hexdigest()


@pytest.mark.parametrize("kind", [HeatmapCodec, RegressionCodec])
def test_a_codec_rebuilds_without_the_file(tmp_path: Path, kind: type) -> None:
    path = write(tmp_path, GOOD)
    codec = kind(skeleton=str(path))
    config = json.loads(json.dumps(codec.config()))
    path.unlink()
    again = instantiate(config, kind)
    again.build(3, (48, 64))
    assert again.config() == config == instantiate(config, kind).config()
    assert config["init_args"]["skeleton"] == {**GOOD, "sigmas": [0.1, 1.0, 0.05]}
    assert again._flip_order(None, torch.device("cpu")).tolist() == [0, 2, 1]
    assert kind(skeleton="coco").config()["init_args"]["skeleton"] == "coco"
    assert kind().config()["init_args"]["skeleton"] is None
    with pytest.raises(BiposeError, match="has the fields"):
        kind(skeleton={"name": "x"})


def _lists(value: object) -> object:
    return [_lists(v) for v in value] if isinstance(value, tuple) else value


NO_JOINTS = ("\u0440\u0443\u043a\u0430", "a b", "P", "Wrist", "a-b", "a.b", "a__b", "_a", "a_", "\u0661", "a/b", "")
TAKEN = ("visible", "occluded", "left_occluded", "right_visible", "joint_mean", "p", "left_n", "n_hidden", "all")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": None}, "not a name"), ({"name": ""}, "not a name"), ({"name": 3}, "not a name"),
        ({"name": "a/b"}, "not a name"), ({"name": "a[b]"}, "not a name"), ({"name": "a\nb"}, "not a name"),
        ({"joints": []}, "unknown or repeated"), ({"joints": None}, "unknown or repeated"), ({"joints": "wrist"}, "not a list"),
        ({"joints": {"wrist": 1}}, "not a list"), ({"joints": ["wrist", 2, "x"]}, "2 is not a name"),
        ({"joints": [["wrist"], "left_tip", "right_tip"]}, "not a name"), ({"joints": ["x" * 65]}, "not a name"),
        ({"joints": ["wrist", "wrist", "left_tip", "right_tip"]}, "repeated joints wrist"),
        ({"swaps": [["left_tip", "nose"]]}, "repeated joints nose"), ({"swaps": ["left_tip"]}, "not a pair"),
        ({"swaps": [["left_tip"]]}, "not a pair"), ({"swaps": [["left_tip", "right_tip", "wrist"]]}, "not a pair"),
        ({"swaps": [["left_tip", None]]}, "not a name"), ({"swaps": [["left_tip", "wrist"], ["wrist", "right_tip"]]}, "swap"),
        ({"limbs": [["wrist", "heel"]]}, "repeated joints heel"), ({"limbs": 5}, "5 is not a list"),
        ({"limbs": [[["wrist"], "left_tip"]]}, "not a name"), ({"torso": "wrist"}, "not a pair"), ({"torso": None}, "not a pair"),
        ({"torso": ["wrist", "nose"]}, "repeated joints nose"), ({"sigmas": [0.1]}, "1 sigmas for 3 joints"),
        ({"sigmas": [0.1, 0.1, "a"]}, "not a positive"), ({"sigmas": [0.1, 0.1, True]}, "not a positive"),
        ({"sigmas": [0.1, 0.1, -1]}, "not a positive"), ({"sigmas": [0.1, 0.1, float("nan")]}, "not a positive"),
        ({"sigmas": [0.1, 0.1, float("inf")]}, "not a positive"), ({"sigmas": [0.1, 0.1, 10**400]}, "not a positive"),
        ({"sigma": [1]}, "has the fields"), ({1: 2}, "has the fields"),
        *(({"joints": [name, "wrist", "left_tip", "right_tip"]}, "not a name of a joint") for name in NO_JOINTS),
        *(({"joints": [name, "wrist", "left_tip", "right_tip"]}, "means something else") for name in TAKEN),
    ],
)  # fmt: skip
def test_what_a_bad_yaml_gets_told(tmp_path: Path, changes: dict, said: str) -> None:
    path = write(tmp_path, {**GOOD, **changes})
    with pytest.raises(BiposeError, match=said) as caught:
        load_skeleton(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in itertools.pairwise("abcdefghij")
)
MERGES = "a: &a {x: 1}\n" + "\n".join(
    f"{b}: &{b} {{<<: [{', '.join(['*' + a] * 9)}]}}" for a, b in itertools.pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "3", "[]", "name: x", "joints: [a]", "{", "name: [", "\t- a", "name: x\njoints: [a]\n---\nname: y",
        "&a [*a]", "&a {name: *a, joints: *a}", "name: x\njoints: &a [*a]", f"{BOMB}\nname: x\njoints: *j",
        f"{MERGES}\nname: x\njoints: *j", "name: *nobody\njoints: []", "name: !!python/object:os.system x\njoints: []",
        "name: 2001-13-45\njoints: []", "name: !!bool maybe\njoints: []", "name: !!timestamp soon\njoints: []",
        "name: !!int ''\njoints: []", "name: !!float x\njoints: []", "name: !!binary '*'\njoints: []",
        f"name: x\njoints: []\nsigmas: [{'9' * 5000}]", "? [a]\n: b", "? {a: b}\n: b", "[" * 60_000, "{a: " * 15_000,
        "name: x\x00", "a" * 300_000,
    ],
)  # fmt: skip
def test_no_yaml_brings_it_down(tmp_path: Path, text: str) -> None:
    with pytest.raises(BiposeError) as caught:
        load_skeleton(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BiposeError, match="cannot read the skeleton"):
        find_skeleton(tmp_path / "none.yaml")
    with pytest.raises(BiposeError, match="cannot read the skeleton"):
        load_skeleton(tmp_path)
    with pytest.raises(BiposeError, match="no path"):
        load_skeleton("a\0b.yaml")
    (tmp_path / "bytes.yaml").write_bytes(bytes(range(256)))
    with pytest.raises(BiposeError, match="not a YAML file"):
        load_skeleton(tmp_path / "bytes.yaml")
    with pytest.raises(BiposeError, match="'cooc' is unknown"):
        find_skeleton("cooc")


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(GOOD["joints"]),  # type: ignore[arg-type]
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "else"]), YAML_VALUES), st.booleans())
def test_any_content_is_a_skeleton_or_one_line(changes: dict, over: bool) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = write(Path(folder), {**GOOD, **changes} if over else changes)
        try:
            skeleton = load_skeleton(path)
        except BiposeError as error:
            said = str(error)
        else:
            said = ""
            np.testing.assert_array_equal(skeleton.flip[skeleton.flip], np.arange(len(skeleton)))
    assert "\n" not in said


def test_a_codec_takes_a_yaml_skeleton(tmp_path: Path) -> None:
    path = tmp_path / "five.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "joints": list(BODY.joints), "swaps": _lists(BODY.swaps)}))
    codec = HeatmapCodec(4, 1.5, skeleton=str(path))
    codec.build(5, (48, 64))
    joints = torch.tensor([[[10.0, 12], [20, 30], [34, 40], [8, 50], [40, 20]]])
    encoded, _ = codec.encode(joints, torch.full((1, 5), 2))
    expected = flip_points(joints, 48, torch.tensor([0, 2, 1, 3, 4]))
    torch.testing.assert_close(codec.decode(codec.flip(encoded))[0], expected, atol=0.1, rtol=0)
    data = PoseDataModule(MemoryReader(2), size=(48, 64))
    check_data(5, (48, 64), codec, data)
    path.write_text(yaml.safe_dump({"name": "mine", "joints": [*BODY.joints[:-1], "tail"], "torso": ["head", "tail"]}))
    with pytest.raises(BiposeError, match="would exchange the wrong ones"):
        check_data(5, (48, 64), HeatmapCodec(4, 1.5, skeleton=str(path)), data)
    with pytest.raises(BiposeError, match="has 5 joints, the data 6"):
        HeatmapCodec(4, 1.5, skeleton=str(path)).build(6, (48, 64))
