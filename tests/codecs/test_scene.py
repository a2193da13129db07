"""The scene codec: laws of heat maps, fields, masks and flips."""

import json

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from bipose_lit.codecs.scene import HEAD_LINKS, SceneCodec, limb_indices, mirrored_limbs
from bipose_lit.geometry import flip_points, from_map, to_map
from bipose_lit.models.rebuild import instantiate
from bipose_lit.skeletons import COCO, SKELETONS
from bipose_lit.types import BiposeError

SIZE = (160, 128)
SEEDS = st.integers(0, 100_000)


def built(size=SIZE, joints=17, **options) -> SceneCodec:
    codec = SceneCodec(**options)
    codec.build(joints, size)
    return codec


def scene(seed: int, images: int = 2, people: int = 3, share: float = 0.2):
    """Joints anywhere in and about the image, some of them absent."""
    rng = np.random.default_rng(seed)
    joints = torch.from_numpy(rng.uniform((-20, -20), (SIZE[0] + 20, SIZE[1] + 20), (images, people, 17, 2))).float()
    visible = torch.from_numpy(
        rng.choice([0, 1, 2], (images, people, 17), p=[share, 0.2, 0.8 - share]).astype(np.uint8)
    )
    return joints, visible


def vectors(encoded) -> torch.Tensor:
    """(N, L, 2, h, w)."""
    return encoded["pafs"].unflatten(1, (-1, 2))


# --- heat maps -------------------------------------------------------------------------------------------------------


@given(SEEDS)
def test_heatmaps_are_the_largest_gaussian_of_anybody(seed):
    """Against a loop in float64."""
    joints, visible = scene(seed)
    codec = built(sigma=1.3)
    maps = codec.encode(joints, visible)[0]["heatmaps"].numpy()
    expected = np.zeros_like(maps, dtype=np.float64)
    places = to_map(joints.double(), 8).numpy()
    for n, p, k in np.ndindex(visible.shape):
        x, y = places[n, p, k]
        if visible[n, p, k] and -0.5 <= x < 19.5 and -0.5 <= y < 15.5:
            d2 = (np.arange(20) - x)[None] ** 2 + (np.arange(16) - y)[:, None] ** 2
            expected[n, k] = np.maximum(expected[n, k], np.exp(-d2 / (2 * 1.3**2)))
    np.testing.assert_allclose(maps, expected, atol=2e-6)


def test_one_person_needs_no_axis_of_people():
    joints, visible = scene(3, people=1)
    codec = built()
    many, one = codec.encode(joints, visible), codec.encode(joints[:, 0], visible[:, 0])
    for key in codec.keys:
        assert torch.equal(many[0][key], one[0][key])
    assert torch.equal(many[1], one[1])


# --- fields ----------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(SEEDS, st.floats(0.8, 2.5))
def test_a_field_is_the_unit_vector_within_the_limb_and_zero_elsewhere(seed, width):
    """Of one person: by the distance of each pixel from the line between the joints, in float64."""
    joints, visible = scene(seed, images=1, people=1)
    codec = built(width=width)
    field = vectors(codec.encode(joints, visible)[0])[0].double().numpy()
    places = to_map(joints[0, 0].double(), 8).numpy()
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(16)), axis=-1).astype(float)
    for limb, (a, b) in enumerate(codec.limbs):
        if not (visible[0, 0, a] and visible[0, 0, b]):
            assert not field[limb].any()
            continue
        along = places[b] - places[a]
        unit = along / np.linalg.norm(along)
        t = np.clip((grid - places[a]) @ unit, 0, np.linalg.norm(along))
        off = np.linalg.norm(grid - places[a] - t[..., None] * unit, axis=-1)
        length = np.linalg.norm(field[limb], axis=0)
        np.testing.assert_allclose(length[off < width - 1e-4], 1, atol=1e-6)
        assert not length[off > width + 1e-4].any()
        inside = off < width - 1e-4
        np.testing.assert_allclose(field[limb][:, inside], np.repeat(unit[:, None], inside.sum(), 1), atol=1e-5)


def test_every_pixel_nearest_to_the_line_has_the_field():
    """What the line integrals stand on: at width 1 or more, no rounded sample of the line misses the limb."""
    joints, visible = scene(5, images=1, people=1, share=0.0)
    joints = joints.clamp(min=0).minimum(torch.tensor(SIZE) - 1.0)
    codec = built(width=1.0)
    field = vectors(codec.encode(joints, visible)[0])[0]
    places = to_map(joints[0, 0], 8)
    for limb, (a, b) in enumerate(codec.limbs):
        for t in np.linspace(0, 1, 200):
            x, y = (places[a] + t * (places[b] - places[a])).round().long().tolist()
            assert field[limb, :, min(max(y, 0), 15), min(max(x, 0), 19)].norm() > 0.99


@settings(max_examples=10)
@given(SEEDS)
def test_where_limbs_of_several_people_meet_is_the_mean(seed):
    joints, visible = scene(seed, images=1, people=4)
    codec = built(width=2.0)
    together = vectors(codec.encode(joints, visible)[0])[0]
    alone = torch.stack([vectors(codec.encode(joints[:, [p]], visible[:, [p]])[0])[0] for p in range(4)])
    count = (alone.norm(dim=2) > 0.5).sum(0, keepdim=False)
    torch.testing.assert_close(together, alone.sum(0) / count.clamp(min=1).unsqueeze(1), rtol=0, atol=1e-5)
    assert (together.norm(dim=1) <= 1 + 1e-5).all()


def test_a_limb_without_length_has_no_field():
    joints = torch.full((1, 1, 17, 2), 60.0)
    encoded, _ = built().encode(joints, torch.full((1, 1, 17), 2))
    assert not encoded["pafs"].any()
    assert torch.isfinite(encoded["pafs"]).all()


def test_a_limb_that_leaves_the_image_is_drawn_as_far_as_it_is_seen():
    joints, visible = torch.zeros(1, 1, 17, 2), torch.zeros(1, 1, 17, dtype=torch.uint8)
    visible[..., [7, 9]] = 2
    joints[0, 0, 7], joints[0, 0, 9] = torch.tensor([100.0, 60.0]), torch.tensor([400.0, 60.0])
    encoded, _ = built().encode(joints, visible)
    limb = built().limbs.tolist().index([7, 9])
    assert vectors(encoded)[0, limb, 0, 7, 12:].tolist() == [1.0] * 8
    assert encoded["heatmaps"][0, 7].max() > 0.5
    assert not encoded["heatmaps"][0, 9].any()


def test_drawing_in_pieces_changes_nothing(monkeypatch):
    joints, visible = scene(9, images=3, people=5)
    whole, _ = built().encode(joints, visible)
    monkeypatch.setattr("bipose_lit.codecs.scene._CHUNK", 1)
    pieces, _ = built().encode(joints, visible)
    torch.testing.assert_close(whole, pieces, rtol=0, atol=1e-6)


# --- flips -----------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(SEEDS, st.sampled_from(["coco", "mpii", "jhmdb", "penn_action", "h36m", "posetrack18"]))
def test_the_flip_of_the_encoding_is_the_encoding_of_the_flip(seed, name):
    skeleton = SKELETONS[name]
    K = len(skeleton)
    rng = np.random.default_rng(seed)
    joints = torch.from_numpy(rng.uniform((0, 0), SIZE, (2, 3, K, 2))).float()
    visible = torch.from_numpy(rng.integers(0, 3, (2, 3, K)).astype(np.uint8))
    codec = built(joints=K, skeleton=name)
    order = torch.as_tensor(skeleton.flip)
    flipped = codec.flip(codec.encode(joints, visible)[0])
    wanted, _ = codec.encode(flip_points(joints, SIZE[0], order), visible[..., order])
    for key in codec.keys:
        torch.testing.assert_close(flipped[key], wanted[key], rtol=0, atol=1e-4)
    again = codec.flip(flipped)
    for key, value in codec.encode(joints, visible)[0].items():
        assert torch.equal(again[key], value)


def test_a_flip_exchanges_limbs_and_turns_x_round():
    codec = SceneCodec()
    order, sign = mirrored_limbs(codec.limbs, COCO)
    names = [tuple(COCO.joints[i] for i in limb) for limb in codec.limbs]
    at = {pair: i for i, pair in enumerate(names)}
    left, right = at["left_shoulder", "left_elbow"], at["right_shoulder", "right_elbow"]
    assert (order[left], order[right]) == (right, left)
    assert sign[left].tolist() == [-1, 1]
    between = at["left_hip", "right_hip"]
    assert order[between] == between
    assert sign[between].tolist() == [1, -1], "its joints are exchanged, which turns it round once more"
    half = {"pafs": codec.flip({"pafs": torch.ones(1, 42, 3, 3)})["pafs"]}
    assert half["pafs"][0, 2 * left].unique().tolist() == [-1.0]


def test_a_skeleton_with_one_side_only_cannot_be_flipped():
    tree = [list(p) for p in COCO.limbs] + [["nose", "left_shoulder"]]
    codec = built(limbs=tree)
    with pytest.raises(BiposeError, match="a flip makes a limb of nose and right_shoulder, which is none"):
        codec.flip(codec.encode(*scene(0))[0])


# --- masks -----------------------------------------------------------------------------------------------------------


def test_what_is_ignored_has_no_weight_and_the_maps_stay():
    joints, visible = scene(1)
    codec = built()
    ignore = torch.zeros(2, 16, 20, dtype=torch.bool)
    ignore[0, 3:7, 4:9] = True
    with_mask, weight = codec.encode(joints, visible, ignore)
    without, ones = codec.encode(joints, visible)
    assert torch.equal(weight, 1 - ignore.float())
    assert (ones == 1).all()
    for key in codec.keys:
        assert torch.equal(with_mask[key], without[key])


def test_a_mask_of_another_size_sets_the_size_of_the_maps():
    """Evaluation may show larger frames than training."""
    joints, visible = scene(1)
    joints = joints.clamp(min=0).minimum(torch.tensor(SIZE) - 1.0)
    small, _ = built().encode(joints, visible)
    large, weight = built().encode(joints, visible, torch.zeros(2, 30, 40, dtype=torch.bool))
    assert large["heatmaps"].shape == (2, 17, 30, 40)
    assert weight.shape == (2, 30, 40)
    for key in small:
        torch.testing.assert_close(large[key][..., :16, :20], small[key], rtol=0, atol=1e-6)


def test_nobody_and_nan_are_no_problem():
    codec = built()
    nobody, weight = codec.encode(torch.zeros(2, 0, 17, 2), torch.zeros(2, 0, 17, dtype=torch.uint8))
    assert nobody["heatmaps"].shape == (2, 17, 16, 20)
    assert nobody["pafs"].shape == (2, 42, 16, 20)
    assert not nobody["heatmaps"].any()
    assert not nobody["pafs"].any()
    assert weight.shape == (2, 16, 20)
    assert [len(p) for p in codec.people(nobody)] == [0, 0]
    joints, visible = torch.full((1, 2, 17, 2), torch.nan), torch.zeros(1, 2, 17, dtype=torch.uint8)
    hidden, _ = codec.encode(joints, visible)
    assert all(torch.isfinite(v).all() and not v.any() for v in hidden.values())
    assert codec.encode(torch.zeros(0, 2, 17, 2), torch.zeros(0, 2, 17))[0]["pafs"].shape == (0, 42, 16, 20)


# --- people ----------------------------------------------------------------------------------------------------------


def test_people_come_back_in_pixels_of_the_image():
    from scene_people import crowd

    codec = SceneCodec()
    codec.build(17, (960, 768))
    joints = from_map(torch.from_numpy(crowd(3, most=1)).float(), 8)
    (people,) = codec.people(codec.encode(joints[None], torch.full((1, 1, 17), 2))[0])
    np.testing.assert_allclose(people.joints[0], joints[0].numpy(), atol=0.02)
    with pytest.raises(BiposeError, match="finds all people of whole images: train and score with SceneModule"):
        codec.decode({})


# --- limbs and settings ----------------------------------------------------------------------------------------------


def test_coco_s_limbs_are_those_of_its_files_and_the_nose_s():
    """The list is that of `skeleton` in person_keypoints_val2017.json, which counts joints from 1."""
    official = "16,14 14,12 17,15 15,13 12,13 6,12 7,13 6,7 6,8 7,9 8,10 9,11 2,3 1,2 1,3 2,4 3,5 4,6 5,7"
    files = {frozenset(int(n) - 1 for n in pair.split(",")) for pair in official.split()}
    ours = {frozenset(limb) for limb in limb_indices(COCO).tolist()}
    assert files < ours
    assert ours - files == {frozenset((0, 5)), frozenset((0, 6))}
    assert len(HEAD_LINKS) == 5


@pytest.mark.parametrize("name", sorted(SKELETONS))
def test_limbs_of_every_skeleton_hold_its_people_together(name):
    limbs = limb_indices(SKELETONS[name])
    assert set(limbs.ravel().tolist()) == set(range(len(SKELETONS[name])))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"stride": 0}, "stride 0 must be at least 1"),
        ({"sigma": 0.0}, "sigma 0.0 and width 1.0 above 0"),
        ({"width": -1.0}, "width -1.0 above 0"),
        ({"skeleton": None}, "needs a skeleton"),
        ({"skeleton": "cat"}, "skeleton 'cat' is unknown"),
        ({"limbs": [["nose", "tail"]]}, r"limb \['nose', 'tail'\] is no pair of joints of coco"),
        ({"limbs": [["nose", "nose"]]}, "is no pair of joints"),
        ({"limbs": [["nose"]]}, "is no pair of joints"),
        ({"limbs": [["nose", "left_eye"], ["left_eye", "nose"]]}, "a limb is there twice"),
        ({"limbs": []}, "no limbs of coco lead from nose to left_eye, right_eye"),
        ({"limbs": [list(p) for p in COCO.limbs]}, "lead from nose to left_shoulder, .*: people would fall apart"),
    ],
)
def test_settings_that_are_none(options, told):
    with pytest.raises(BiposeError, match=told) as error:
        SceneCodec(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("size", "joints", "told"),
    [
        ((100, 128), 17, "images of 100x128 are no multiple of the maps' stride 8; 96x128 would be one"),
        ((16, 128), 17, "give maps below 3x3"),
        ((64, 64), 15, "skeleton coco has 17 joints, the data 15"),
    ],
)
def test_sizes_and_joints_that_do_not_fit(size, joints, told):
    with pytest.raises(BiposeError, match=told):
        built(size, joints)


def test_the_configuration_is_plain_data_and_rebuilds_the_codec():
    codec = SceneCodec(sigma=1.5, limbs=[list(p) for p in (*COCO.limbs, *HEAD_LINKS[1:3])], parts=4)
    config = json.loads(json.dumps(codec.config()))
    again = instantiate(config)
    assert again.config() == codec.config() == config
    assert again.limbs.tolist() == codec.limbs.tolist()
    assert again.rules == codec.rules
