"""Human3.6M's layouts: VideoPose3D's pickled files with and without cameras and detections, and bipose's plain tracks."""

import json
import zipfile

import numpy as np
import pytest

from bipose_lit.datasets.h36m import H36M
from bipose_lit.datasets.h36m_files import KEPT
from bipose_lit.datasets.motion import long_uids
from bipose_lit.skeletons import H36M as SKELETON
from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE, BiposeError

SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
META = {"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]]}
# Two cameras 6 m from the origin, looking along the world's y and along its -y; the world's z is up.
CAMERAS = [
    {"id": "front", "K": [[1000, 0, 500], [0, 1000, 480], [0, 0, 1]], "R": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
     "t": [0, 1000, 6000], "size": [1000, 960]},
    {"id": "back", "K": [[1000, 0, 500], [0, 1000, 480], [0, 0, 1]], "R": [[-1, 0, 0], [0, 0, -1], [0, -1, 0]],
     "t": [0, 1000, 6000], "size": [1000, 960], "distortion": [-0.2, 0.2, 0.0, 0.001, 0.001]},
]  # fmt: skip


def body(seed=0, frames=6, joints=32):
    rng = np.random.default_rng(seed)
    return (rng.normal((0, 0, 1), (0.3, 0.3, 0.4), (1, joints, 3)) + rng.normal(0, 0.01, (frames, 1, 3))).astype(
        np.float32
    )


def save(root, positions=None, **further):
    if positions is None:
        positions = {s: {"Walking": body(i), "Eating 1": body(i + 50)} for i, s in enumerate(SUBJECTS)}
    np.savez_compressed(root / "data_3d_h36m.npz", positions_3d=positions, **further)
    return positions


def save_2d(root, positions, cameras=2, meta=META, **changes):
    rng = np.random.default_rng(9)
    found = {s: {a: [rng.uniform(100, 900, (len(p), 17, 2)).astype(np.float32) for _ in range(cameras)] for a, p in acts.items()}
             for s, acts in positions.items()}  # fmt: skip
    for key, value in changes.items():
        subject, action = key.split("_")
        found[subject][action] = value
    np.savez_compressed(root / "2d.npz", positions_2d=found, **({"metadata": meta} if meta else {}))
    return found


def save_cameras(root, content=None):
    (root / "cameras.json").write_text(json.dumps({"*": CAMERAS} if content is None else content))


def test_the_seventeen_joints_are_those_that_videopose3d_keeps():
    removed = [4, 5, 9, 10, 11, 16, 20, 21, 22, 23, 24, 28, 29, 30, 31]
    assert list(KEPT) == [i for i in range(32) if i not in removed]
    # Its left and right lists over the 32 joints, reduced, are the metadata of its 2D files and our own swaps.
    left, right = [6, 7, 8, 9, 10, *range(16, 24)], [1, 2, 3, 4, 5, *range(24, 32)]
    sides = [[KEPT.index(i) for i in side if i in KEPT] for side in (left, right)]
    assert sides == META["keypoints_symmetry"]
    assert [sorted(SKELETON.index(n) for n in side) for side in zip(*SKELETON.swaps, strict=True)] == sides
    # Parents over the 32 joints, followed up past the removed ones (shoulders hang on the thorax, 13, there rewired).
    parents = [
        -1,
        0,
        1,
        2,
        3,
        4,
        0,
        6,
        7,
        8,
        9,
        0,
        11,
        12,
        13,
        14,
        12,
        16,
        17,
        18,
        19,
        20,
        19,
        22,
        12,
        24,
        25,
        26,
        27,
        28,
        27,
        30,
    ]
    for child in KEPT[1:]:
        parent = parents[child]
        while parent in removed:
            parent = parents[parent]
        pair = {SKELETON.joints[KEPT.index(j)] for j in (child, 13 if child in (17, 25) else parent)}
        assert any(set(limb) == pair for limb in SKELETON.limbs), pair


def test_positions_alone(tmp_path):
    positions = save(tmp_path)
    index = H36M(tmp_path).index("test")
    assert index.name == "h36m/test[frame-box]"
    assert [t.clip for t in index.tracks] == ["S11/Eating 1", "S11/Walking", "S9/Eating 1", "S9/Walking"]
    assert index.clusters == ("S11", "S9")
    track = index.tracks[0]
    assert (track.action, track.fps, len(track), len(track.frames)) == ("Eating", 50.0, 6, 6)
    np.testing.assert_allclose(track.joints_3d, positions["S11"]["Eating 1"][:, KEPT] * 1000.0, rtol=1e-6)
    assert track.camera is None
    assert (track.visible == ABSENT).all()
    assert (track.joints == 0).all()
    assert (track.boxes == (0, 0, 1000, 1000)).all()
    with pytest.raises(BiposeError, match="no pictures"):
        track.frames.read([0])
    assert index.skipped == {}


def test_splits(tmp_path):
    save(tmp_path)

    def subjects(split, **options):
        return {t.cluster for t in H36M(tmp_path, **options).index(split).tracks}

    assert subjects("train") == {"S1", "S5", "S6", "S7"}
    assert subjects("val") == {"S8"}
    assert subjects("test") == {"S9", "S11"}
    assert subjects("train", val_subjects=()) == {"S1", "S5", "S6", "S7", "S8"}
    reader = H36M(tmp_path, val_subjects=(), val_fraction=0.3)
    train, val = ({t.clip for t in reader.index(s).tracks} for s in ("train", "val"))
    assert (len(train), len(val)) == (7, 3)
    assert not train & val
    with pytest.raises(BiposeError, match="no val takes; choose val_subjects"):
        H36M(tmp_path, val_subjects=()).index("val")
    with pytest.raises(BiposeError, match="none of train, val, test"):
        H36M(tmp_path).index("dev")


def test_cameras_project(tmp_path):
    positions = save(tmp_path)
    save_cameras(tmp_path)
    index = H36M(tmp_path, cameras="cameras.json").index("val")
    assert [t.clip for t in index.tracks] == [
        "S8/Eating 1/front",
        "S8/Eating 1/back",
        "S8/Walking/front",
        "S8/Walking/back",
    ]
    world = positions["S8"]["Eating 1"][:, KEPT].astype(np.float64) * 1000
    front = index.tracks[0]
    x, y, z = world[..., 0], 1000 - world[..., 2], world[..., 1] + 6000
    np.testing.assert_allclose(front.joints_3d, np.stack([x, y, z], -1), atol=1e-2)
    np.testing.assert_allclose(front.joints, np.stack([500 + 1000 * x / z, 480 + 1000 * y / z], -1), atol=1e-3)
    assert (front.visible == VISIBLE).all()
    assert front.image_size == (1000, 960)
    tight = front.joints.min(axis=1)
    np.testing.assert_allclose(front.boxes[:, :2], tight, atol=1e-4)
    back = index.tracks[1]
    assert back.camera.distortion[0] == -0.2
    assert np.corrcoef(front.joints[0, :, 0], back.joints[0, :, 0])[0, 1] < -0.9  # seen from the other side
    assert len({u for t in index.tracks for u in t.uid.tolist()}) == 24


def test_joints_out_of_the_picture_are_hidden_and_those_behind_absent(tmp_path):
    positions = save(tmp_path)
    moved = positions["S8"]["Walking"]
    moved[0, KEPT[3]] = (0, -50, 1)  # behind the front camera
    moved[0, KEPT[4]] = (30, 0, 1)
    moved[1, KEPT[5]] = np.nan
    save(tmp_path, positions)
    save_cameras(tmp_path)
    index = H36M(tmp_path, cameras="cameras.json").index("val")
    track = next(t for t in index.tracks if t.clip == "S8/Walking/front")
    assert track.visible[0, 3] == ABSENT
    assert track.visible[0, 4] == OCCLUDED
    assert track.visible[1, 5] == ABSENT
    assert (track.joints[track.visible == ABSENT] == 0).all()
    assert np.isfinite(track.joints_3d).all()
    assert index.skipped == {"joints not finite, taken as absent": ["S8/Walking (1)"]}


def test_detections_with_cameras(tmp_path):
    found = save_2d(tmp_path, save(tmp_path))
    save_cameras(tmp_path)
    track = H36M(tmp_path, detections="2d.npz", cameras="cameras.json").index("test").tracks[-1]
    assert track.clip == "S9/Walking/back"
    np.testing.assert_array_equal(track.detected, found["S9"]["Walking"][1])
    assert np.abs(track.detected - track.joints).max() > 1


def test_detections_without_cameras_are_the_joints(tmp_path):
    positions = save(tmp_path)
    found = save_2d(tmp_path, positions, cameras=4, meta=None)
    index = H36M(tmp_path, detections="2d.npz", box_rule="clip-box").index("test")
    assert len(index.tracks) == 16
    track = index.tracks[-1]
    assert track.clip == "S9/Walking/camera3"
    np.testing.assert_array_equal(track.joints, found["S9"]["Walking"][3])
    np.testing.assert_array_equal(track.detected, track.joints)
    np.testing.assert_allclose(track.joints_3d, positions["S9"]["Walking"][:, KEPT] * 1000.0, rtol=1e-6)
    assert (track.boxes == track.boxes[0]).all()


def test_lengths_that_differ_are_cut_and_told(tmp_path):
    positions = save(tmp_path)
    rng = np.random.default_rng(0)
    longer = [rng.uniform(0, 900, (9, 17, 3)), rng.uniform(0, 900, (4, 17, 3))]
    save_2d(tmp_path, positions, S9_Walking=longer)
    index = H36M(tmp_path, detections="2d.npz").index("test")
    a, b = (t for t in index.tracks if t.clip.startswith("S9/Walking"))
    assert (len(a), len(b)) == (6, 4)
    for track in (a, b):
        assert len(track.joints_3d) == len(track.detected) == len(track.frames) == len(track.boxes) == len(track)
    np.testing.assert_allclose(a.detected, longer[0][:6, :, :2], rtol=1e-6)
    assert index.skipped == {
        "positions and detections differ in number, common start used": ["S9/Walking (6 positions, 9, 4 detections)"]
    }


def test_long_takes_have_ids_that_do_not_repeat():
    uids = long_uids("S9/Walking", 10_000)
    assert len(set(uids.tolist())) == 10_000
    assert not set(uids.tolist()) & set(long_uids("S9/Walking 1", 10_000).tolist())
    np.testing.assert_array_equal(uids[:4096], long_uids("S9/Walking", 4096))


def test_units(tmp_path):
    positions = save(tmp_path)

    def scaled(factor):
        return save(tmp_path, {s: {a: p * factor for a, p in acts.items()} for s, acts in positions.items()})

    with pytest.raises(BiposeError, match=r"persons are 0\.00\d+ m in size when its unit is mm; give unit m"):
        H36M(tmp_path, unit="mm").index("test")
    scaled(1000)
    with pytest.raises(BiposeError, match=r"persons are 1\d+ m in size when its unit is m; give unit mm"):
        H36M(tmp_path).index("test")
    track = H36M(tmp_path, unit="mm").index("test").tracks[-1]
    np.testing.assert_allclose(track.joints_3d, positions["S9"]["Walking"][:, KEPT] * 1000.0, rtol=1e-5)
    for factor in (100, 39.37, 0.0):  # centimetres, inches, nobody
        scaled(factor)
        for unit in ("m", "mm"):
            with pytest.raises(BiposeError, match="which fits neither m nor mm; store the positions in metres"):
                H36M(tmp_path, unit=unit).index("test")


@pytest.mark.parametrize(("size", "good"), [(0.49, False), (0.51, True), (2.99, True), (3.01, False)])
def test_persons_have_half_a_metre_to_three(tmp_path, size, good):
    pose = np.zeros((4, 17, 3), np.float32)
    pose[:, 2, 2] = size
    save(tmp_path, {"S9": {"Walking": pose}})
    if good:
        assert H36M(tmp_path).index("test").tracks
    else:
        with pytest.raises(BiposeError, match="fits neither"):
            H36M(tmp_path).index("test")


def test_seventeen_joints_are_taken_as_they_are(tmp_path):
    save(tmp_path, {"S9": {"Walking": body(joints=17)}})
    np.testing.assert_allclose(H36M(tmp_path).index("test").tracks[0].joints_3d, body(joints=17) * 1000.0, rtol=1e-6)


BAD = {
    "too few joints": np.zeros((3, 20, 3), np.float32),
    "no frames": np.zeros((0, 32, 3), np.float32),
    "two axes": np.zeros((32, 3), np.float32),
    "text": np.array([["a"]]),
    "complex": np.zeros((3, 17, 3), object).tolist(),
    "none": None,
    "a dict": {"x": np.zeros(3)},
    "a dict like a take of ours": {"positions_3d": np.zeros((2, 17, 3)), "K": 3},
    "a number": 3.5,
    "a list": [np.zeros((3, 17, 3))],
    "nothing finite": np.full((3, 32, 3), np.nan, np.float32),
    "far away": np.full((3, 32, 3), 1e30),
    "beyond float64": np.full((3, 32, 3), 1e308),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", list(BAD))
def test_broken_takes(tmp_path, name):
    positions = save(tmp_path)
    positions["S9"]["Walking"] = BAD[name]
    save(tmp_path, positions)
    with pytest.raises(BiposeError, match=r"data_3d_h36m\.npz: S9/Walking: ") as error:
        H36M(tmp_path).index("test")
    assert "\n" not in str(error.value)
    index = H36M(tmp_path, strict=False).index("test")
    assert [t.clip for t in index.tracks] == ["S11/Eating 1", "S11/Walking", "S9/Eating 1"]
    assert list(index.skipped) == ["takes left out"]


@pytest.mark.parametrize(
    "content",
    [3, [], {}, {"S9": 3}, {"S9": {}}, {7: {"a": body()}}, {"S9": {None: body()}}, {"S9": {"a/b": body()}},
     {"S9": {"a\nb": body()}}, {"S9": {"": body()}}, {"S9": {"x" * 1000: body()}}, np.zeros((3, 32, 3)), "S9",
     {10**5000: {"a": body()}}, {"S9": {10**5000: body()}}, [[[]] * 300] * 300],
    ids=lambda content: str(type(content)),
)  # fmt: skip
def test_broken_structures(tmp_path, content):
    save(tmp_path, content)
    with pytest.raises(BiposeError, match=r"data_3d_h36m\.npz: ") as error:
        H36M(tmp_path).index("test")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([np.zeros((6, 17, 2))], "detections of 1 cameras"),
        ([np.zeros((6, 16, 2))] * 2, "camera 0: has the shape"),
        ([np.full((6, 17, 2), np.nan)] * 2, "no pixels"),
        ([np.full((6, 17, 2), 1e12)] * 2, "no pixels"),
        ([None, None], "expected an array"),
        ([], "expected a list"),
        (None, "expected a list"),
        ("ab", "expected a list"),
        ({"a": 1}, "expected a list"),
    ],
)
def test_broken_detections(tmp_path, value, told):
    positions = save(tmp_path)
    save_cameras(tmp_path)
    save_2d(tmp_path, positions, S9_Walking=value)
    with pytest.raises(BiposeError, match=told):
        H36M(tmp_path, detections="2d.npz", cameras="cameras.json").index("test")
    index = H36M(tmp_path, detections="2d.npz", cameras="cameras.json", strict=False).index("test")
    assert len(index.tracks) == 6
    assert "S9/Walking" in index.skipped["takes left out"][0]


def test_what_the_user_gets_told(tmp_path):
    with pytest.raises(BiposeError, match="no such file; give the folder"):
        H36M(tmp_path)
    (tmp_path / "tracks.npz").touch()
    with pytest.raises(BiposeError, match=r"give positions tracks\.npz"):
        H36M(tmp_path)
    with pytest.raises(BiposeError, match="not a readable npz"):
        H36M(tmp_path, positions="tracks.npz").index("test")
    positions = save(tmp_path)
    for options, told in (
        ({"box_rule": "gt-box"}, "box_rule"), ({"unit": "cm"}, "unit"), ({"val_fraction": 1.0}, "val_fraction"),
        ({"val_subjects": ("S9",)}, "in common"), ({"fps": -1}, "fps"), ({"image_size": (0, 1)}, "image_size"),
    ):  # fmt: skip
        with pytest.raises(BiposeError, match=told):
            H36M(tmp_path, **options)
    save_cameras(tmp_path, {"S1": CAMERAS})
    with pytest.raises(BiposeError, match="no cameras of subject S11"):
        H36M(tmp_path, cameras="cameras.json").index("test")
    save_cameras(tmp_path, {"*": [camera | {"t": [0, 1, -6e5]} for camera in CAMERAS]})
    with pytest.raises(
        BiposeError, match=r"no test takes .*never in front of the camera: S11/Eating 1/front; are the cameras'"
    ):
        H36M(tmp_path, cameras="cameras.json").index("test")
    del positions["S9"]["Walking"]
    save_2d(tmp_path, positions)
    with pytest.raises(BiposeError, match="S9/Walking: no detections of this take"):
        H36M(tmp_path, detections="2d.npz").index("test")
    np.savez(tmp_path / "x.npz", a=np.zeros(3), **{"S9/W/K": np.zeros(3)})
    with pytest.raises(BiposeError, match="no array S9/W/positions_3d"):
        H36M(tmp_path, positions="x.npz").index("test")


def test_a_pickle_that_would_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    save(tmp_path, {"S9": {"Walking": Evil()}})
    with pytest.raises(BiposeError, match=r"asks for builtins\.exec; refused"):
        H36M(tmp_path).index("test")
    assert not (tmp_path / "ran").exists()
    assert zipfile.is_zipfile(tmp_path / "data_3d_h36m.npz")
