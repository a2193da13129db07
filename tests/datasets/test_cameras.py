"""Cameras: VideoPose3D's numbers as they stand, OpenCV's projection as the oracle, and what broken lists are told."""

import json

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bipose_lit.datasets.cameras import load_cameras, of_subject, project, ring, to_camera
from bipose_lit.datasets.index import Camera
from bipose_lit.types import BiposeError

# Human3.6M's camera 54138969 of subject 1 (metadata of the set).
TABLE = {
    "id": "54138969",
    "center": [512.54150390625, 515.4514770507812],
    "focal_length": [1145.0494384765625, 1143.7811279296875],
    "radial_distortion": [-0.20709891617298126, 0.24777518212795258, -0.0030751503072679043],
    "tangential_distortion": [-0.0009756988729350269, -0.00142447161488235],
    "res_w": 1000,
    "res_h": 1002,
    "orientation": [0.1407056450843811, -0.1500701755285263, -0.755240797996521, 0.6223280429840088],
    "translation": [1841.1070556640625, 4955.28466796875, 1563.4454345703125],
}


def write(folder, content):
    path = folder / "cameras.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def people(seed=0, frames=4):
    return np.random.default_rng(seed).normal((0, 0, 900), (800, 800, 500), (frames, 17, 3))


def test_videopose3ds_table(tmp_path):
    cameras = load_cameras(write(tmp_path, {"S1": [TABLE], "S2": [{}]}))
    (view,) = cameras["S1"]
    assert "S2" not in cameras
    assert (view.camera.name, view.size) == ("54138969", (1000, 1002))
    turn = Rotation.from_quat(TABLE["orientation"], scalar_first=True)
    world = people()
    expected = turn.inv().apply((world - TABLE["translation"]).reshape(-1, 3)).reshape(world.shape)
    np.testing.assert_allclose(to_camera(view.camera, world), expected, atol=1e-3)
    pixels, ahead = project(view.camera, to_camera(view.camera, world))
    assert ahead.all()
    assert ((pixels > 0) & (pixels < 1002)).all()
    # The camera hangs at head height: up in the world (z) is up in the picture.
    up = project(view.camera, to_camera(view.camera, np.array([[[0.0, 0, 0], [0, 0, 1700]]])))[0]
    assert up[0, 0, 1] - up[0, 1, 1] > 300


def test_the_lens_is_human36ms(tmp_path):
    """The formula of `ProjectPointRadial`, and OpenCV's with its doubled tangential terms halved by hand."""
    camera = load_cameras(write(tmp_path, {"S1": [TABLE]}))["S1"][0].camera
    points = to_camera(camera, people(1))
    pixels, _ = project(camera, points)
    (k1, k2, k3), (p1, p2) = TABLE["radial_distortion"], TABLE["tangential_distortion"]
    f, c = TABLE["focal_length"], TABLE["center"]
    for point, pixel in zip(points.reshape(-1, 3), pixels.reshape(-1, 2), strict=True):
        x, y = point[0] / point[2], point[1] / point[2]
        r2 = x * x + y * y
        scale = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * y + p2 * x
        np.testing.assert_allclose(pixel, [f[0] * (x * scale + p2 * r2) + c[0], f[1] * (y * scale + p1 * r2) + c[1]])
    lens = np.array([k1, k2, p1, p2, k3])
    theirs, _ = cv2.projectPoints(points.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), camera.intrinsics, lens)
    assert np.abs(theirs.reshape(-1, 2) - pixels.reshape(-1, 2)).max() < 1  # as documented: less than a pixel


def test_radial_distortion_and_skew_are_opencvs():
    rng = np.random.default_rng(2)
    K = np.array([[1100.0, 0, 500], [0, 1200, 480], [0, 0, 1]])
    camera = Camera("a", K, np.eye(3), np.zeros(3), (-0.2, 0.2, -0.01, 0.0, 0.0))
    points = rng.uniform((-1500, -1500, 4000), (1500, 1500, 6000), (3, 17, 3))
    theirs, _ = cv2.projectPoints(
        points.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), K, np.array([-0.2, 0.2, 0, 0, -0.01])
    )
    np.testing.assert_allclose(project(camera, points)[0].reshape(-1, 2), theirs[:, 0], atol=1e-6)
    K[0, 1] = 7
    plain = Camera("a", K, np.eye(3), np.zeros(3))
    homogeneous = points @ K.T
    np.testing.assert_allclose(project(plain, points)[0], homogeneous[..., :2] / homogeneous[..., 2:], atol=1e-9)


def test_a_lens_that_folds_is_left_for_good():
    """Beyond its first fold a lens may seem one-to-one again, far out; what it shows there lies in the picture twice."""
    K = np.diag([100.0, 100, 1])
    for lens, first in (
        ((-0.5, 0.1, 0.0, 0.0, 0.0), 1.0),  # 1 - 1.5 u + 0.5 u^2 = (1 - u) (1 - u / 2): u is the squared radius
        ((-0.5, 0.0, 0.0, 0.0, 0.0), 2 / 3),
        ((0.0, 0.0, -1 / 7, 0.0, 0.0), 1.0),
        ((-1e-300, 1e-300, 1e-300, 0.0, 0.0), np.inf),
        ((0.03, 0.0001, 0.0, 0.0, 0.0), np.inf),
        ((-0.2, 0.24, -0.003, -0.001, -0.001), (1.2 + np.sqrt(1.2**2 + 4 * 0.021)) / 0.042),  # about: k1 left out
    ):
        camera = Camera("a", K, np.eye(3), np.zeros(3), lens)
        squares = np.array([0.01, 0.3, 0.66, 0.67, 0.98, 1.02, 1.5, 1.9, 2.1, 4.0, 30.0, 55.0, 60.0, 900.0])
        points = np.stack([1000 * np.sqrt(squares), np.zeros(14), np.full(14, 1000.0)], axis=-1)[None]
        with np.errstate(all="raise"):
            assert project(camera, points)[1].tolist() == [(squares < first).tolist()], lens


def test_a_lens_that_does_not_bend_sees_to_the_side_but_not_behind():
    camera = Camera("a", np.diag([1000.0, 1000, 1]), np.eye(3), np.zeros(3))
    points = np.array(
        [[[9.99e4, 0, 1000], [1.001e5, 0, 1000], [0, -9.99e4, 1000], [0, -1.001e5, 1000], [0, 0, 0.9], [0, 0, 1.1]]]
    )
    assert project(camera, points)[1].tolist() == [[True, False, True, False, False, True]]


def test_points_without_a_pixel():
    camera = Camera("a", np.diag([1000.0, 1000, 1]), np.eye(3), np.zeros(3), (-0.5, 0.0, 0.0, 0.0, 0.0))
    points = np.array([[[0, 0, 1000], [0, 0, -1000], [0, 0, 0], [5e5, 0, 1000], [2000, 0, 1000.0]]])
    pixels, ahead = project(camera, points)
    assert ahead.tolist() == [[True, False, False, False, False]]  # the last: this lens is folded there
    assert (pixels[~ahead] == 0).all()


def test_both_ways_to_write_a_camera_are_one(tmp_path):
    table = load_cameras(write(tmp_path, {"*": [TABLE]}))["*"][0]
    camera = table.camera
    matrices = {
        "id": 54138969, "K": camera.intrinsics.tolist(), "R": camera.rotation.tolist(), "t": camera.translation.tolist(),
        "distortion": list(camera.distortion), "size": [1000, 1002],
    }  # fmt: skip
    other = load_cameras(write(tmp_path, [matrices]))
    world = people()
    np.testing.assert_allclose(
        project(camera, to_camera(camera, world))[0],
        project(other["*"][0].camera, to_camera(other["*"][0].camera, world))[0],
    )
    assert of_subject(other, "S9") == other["*"]
    assert of_subject({"S1": other["*"]}, "S9") == ()


def test_moving_cameras():
    R = Rotation.random(3, random_state=0).as_matrix()
    t = np.arange(9.0).reshape(3, 3)
    world = people(frames=3)
    camera = Camera("m", np.tile(np.eye(3), (3, 1, 1)), R, t)
    for frame in range(3):
        np.testing.assert_allclose(to_camera(camera, world)[frame], world[frame] @ R[frame].T + t[frame])


@pytest.mark.parametrize("extent", [0.0, 1000.0, 20_000.0])
def test_the_ring_sees_all_of_the_motion_upright(extent):
    world = np.random.default_rng(0).uniform(-1, 1, (5, 17, 3)) * (extent + 1, 1000, extent + 1)
    views = ring(world, 4, 5000.0, 10.0, 1145.0, (1000, 800))
    assert len({v.camera.name for v in views}) == 4
    for view in views:
        R = view.camera.rotation
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(R) == pytest.approx(1)
        pixels, ahead = project(view.camera, to_camera(view.camera, world))
        assert ahead.all()
        assert (pixels > 0).all()
        assert (pixels < (999, 799)).all()
        up = project(view.camera, to_camera(view.camera, np.array([[[0.0, 0, 0], [0, 500, 0]]])))[0]
        assert up[0, 1, 1] < up[0, 0, 1]
        centre = -R.T @ view.camera.translation
        assert centre[1] > 0


def test_the_ring_keeps_a_fiftieth_of_the_motions_radius_free():
    ball = np.random.default_rng(0).normal(size=(1, 50_000, 3))
    ball *= 4000 / np.linalg.norm(ball, axis=-1, keepdims=True)
    for view in ring(ball, 3, 500.0, 20.0, 1145.0, (1000, 800)):
        v = project(view.camera, to_camera(view.camera, ball))[0][..., 1]
        half = np.tan(np.arcsin(np.sin(np.arctan(399.5 / 1145)) / 1.02)) * 1145  # a ball fills the cone that touches it
        assert v.min() == pytest.approx(399.5 - half, abs=1)
        assert v.max() == pytest.approx(399.5 + half, abs=1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"focal_length": None}, "focal_length must hold 2 numbers"),
        ({"focal_length": [0, 1]}, "K is no pinhole"),
        ({"focal_length": [-1, 1]}, "K is no pinhole"),
        ({"focal_length": ["1", 1]}, "focal_length holds '1'"),
        ({"focal_length": [True, 1]}, "focal_length holds 'True'"),
        ({"center": [1e400, 1]}, "center holds 'inf'"),
        ({"center": [float("nan"), 1]}, "center holds 'nan'"),
        ({"center": [10**400, 1]}, "center holds 'a number of many digits'"),
        ({"center": [[1], 1]}, "center holds"),
        ({"orientation": [1, 1, 1, 1]}, "orientation has length 2"),
        ({"orientation": [1, 0, 0]}, "orientation must hold 4"),
        ({"translation": [1, 2]}, "translation must hold 3"),
        ({"R": [[1, 0, 0], [0, 1, 0], [0, 0, -1]], "t": [0, 0, 0]}, "R is not a rotation"),
        ({"R": [[2, 0, 0], [0, 1, 0], [0, 0, 1]], "t": [0, 0, 0]}, "R is not a rotation"),
        ({"R": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}, "lacks t"),
        ({"K": [[1, 0, 0], [1, 1, 0], [0, 0, 1]]}, "K is no pinhole"),
        ({"K": [1, 0, 0]}, "K must hold 3 x 3"),
        ({"distortion": [1, 2]}, "distortion must hold 5"),
        ({"res_w": 0}, "no size"),
        ({"res_h": None}, "res_w, res_h holds 'None'"),
        ({"size": [10.5, 10]}, "no size"),
        ({"id": "a/b"}, "id that is no short word"),
        ({"id": ""}, "id that is no short word"),
        ({"id": ["\n"] * 50}, "id that is no short word"),
        ({"dist": [0.1, 0, 0, 0, 0]}, "has dist, which is none of "),
        ({"Size\n": [1, 2]}, "has Size?, which is none of "),
        ({"size": None, "res_w": None}, "size must hold 2 numbers"),
        ({"focal_length": [49.9, 1145]}, "focal length 49.9 x 1.14e+03; give it in pixels"),
        ({"focal_length": [2.29, 2.28], "center": [0.025, 0.03]}, "focal length 2.29 x 2.28; give it in pixels"),
        ({"center": [-0.1, 500]}, "center (-0.1, 500) lies outside of its picture of 1000 x 1002"),
        ({"center": [500, 1002.1]}, "center (500, 1002.1) lies outside"),
        ({"translation": [1.841, 4.955, 1.563]}, "5.51 mm from the world's origin; give millimetres"),
        (
            {"R": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "t": [0.0, 1.0, 5.2]},
            "5.3 mm from the world's origin; give millimetres",
        ),
    ],
)
def test_broken_cameras(tmp_path, change, told):
    with pytest.raises(BiposeError) as error:
        load_cameras(write(tmp_path, {"S1": [TABLE | change]}))
    assert "cameras.json: camera 0 of S1: " in str(error.value)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("lacking", ["id", "center", "focal_length", "orientation", "translation", "res_w", "res_h"])
def test_what_a_camera_needs(tmp_path, lacking):
    entry = {key: value for key, value in TABLE.items() if key != lacking}
    if lacking == "id":
        assert load_cameras(write(tmp_path, [entry]))["*"][0].camera.name == "0"
        return
    told = {"res_w": "lacks size", "res_h": "res_w, res_h holds 'None'"}.get(lacking, f"lacks {lacking}")
    with pytest.raises(BiposeError, match=told):
        load_cameras(write(tmp_path, [entry]))


def test_what_a_camera_may_have(tmp_path):
    load_cameras(write(tmp_path, [TABLE | {"azimuth": 70}]))  # "only used for visualization" there
    at_origin = {
        "K": [[50, 0, 0], [0, 50, 100], [0, 0, 1]],
        "R": np.eye(3).tolist(),
        "t": [0, 0, 0],
        "size": [100, 100],
    }
    beside = at_origin | {"id": "b", "t": [-65, 0, 0]}  # a stereo pair
    assert [v.size for v in load_cameras(write(tmp_path, [at_origin, beside]))["*"]] == [(100, 100)] * 2


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", "3", '{"S1": 3}', '{"S1": [3]}', '{"S1": [{"id": "1"}]}', '{"S1": []}', "[" * 100_000, "9" * 10_000,
     '{"S1": [{}]}'],
)  # fmt: skip
def test_broken_lists(tmp_path, content):
    with pytest.raises(BiposeError, match=r"cameras\.json: ") as error:
        load_cameras(write(tmp_path, content))
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(BiposeError, match="cannot read the cameras"):
        load_cameras(tmp_path / "none.json")
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BiposeError, match="not a JSON file"):
        load_cameras(tmp_path / "a.json")
    with pytest.raises(BiposeError, match="same id"):
        load_cameras(write(tmp_path, [TABLE, TABLE]))
