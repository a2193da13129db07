"""Plain arrays in Human3.6M's reader: the 3D tracks of bipose's synthetic set, and positions that others wrote."""

import numpy as np
import pytest

from bipose_lit.datasets.h36m import H36M
from bipose_lit.datasets.synthetic.points import NAMES
from bipose_lit.datasets.synthetic.write import ClipLabels
from bipose_lit.datasets.synthetic.write_stills import write_h36m
from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE, BiposeError


def clip_labels(name="walk/scene0012_0", split="test", frames=5):
    rng = np.random.default_rng(4)
    positions = (rng.normal((0, 1, 0), (0.2, 0.5, 0.2), (1, 22, 3)) + np.zeros((frames, 1, 1))).astype(np.float32)
    flags = rng.random((frames, len(NAMES))) < 0.2
    return ClipLabels(
        clip=name, split=split, cluster="scene0012", action="walk", regime="none", fps=25.0, size=(128, 96),
        points=rng.uniform(0, 90, (frames, len(NAMES), 2)).astype(np.float32), hidden=flags, outside=flags[::-1],
        behind=~flags & False,
        boxes=np.zeros((frames, 4), np.float32), heads=np.zeros((frames, 4), np.float32), positions=positions,
        K=np.tile(np.array([[100, 0, 63.5], [0, 100, 47.5], [0, 0, 1]], np.float32), (frames, 1, 1)),
        R=np.tile(np.diag([1, -1, -1]).astype(np.float32), (frames, 1, 1)), t=np.tile(np.float32([0, 1, 4]), (frames, 1)),
    )  # fmt: skip


def test_the_synthetic_sets_tracks(tmp_path):
    write_h36m(tmp_path, [clip_labels(), clip_labels("walk/scene0012_1")])
    index = H36M(tmp_path, positions="tracks.npz").index("test")
    assert [t.clip for t in index.tracks] == ["S9/walk scene0012_0", "S9/walk scene0012_1"]
    assert index.clusters == ("scene0012",)
    track = index.tracks[0]
    assert (track.action, track.fps, track.image_size) == ("walk", 25.0, (128, 96))
    assert H36M(tmp_path, positions="tracks.npz", fps=30).index("test").tracks[0].fps == 30
    with np.load(tmp_path / "tracks.npz") as file:
        part = {n.rsplit("/", 1)[1]: file[n] for n in file.files if "_0/" in n}
    np.testing.assert_array_equal(track.visible, part["visible"])
    seen = track.visible != ABSENT
    np.testing.assert_allclose(track.joints[seen], part["positions_2d"][seen], rtol=1e-6)
    world = part["positions_3d"].astype(np.float64) * 1000
    np.testing.assert_allclose(track.joints_3d, world * (1, -1, -1) + (0, 1000, 4000), atol=1e-2)
    assert track.camera.rotation.shape == (5, 3, 3)
    assert {OCCLUDED, VISIBLE} == set(np.unique(track.visible))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("visible", np.full((5, 17), 7)), ("visible", np.zeros((4, 17))), ("R", np.zeros((5, 3, 3))),
        ("K", np.full((5, 3, 3), np.nan)),
        ("t", np.full((5, 3), np.inf)), ("positions_2d", np.zeros((5, 17))), ("positions_3d", np.zeros((5, 17))),
        ("K", np.array("x")), ("positions_2d", np.array(["a"] * 3)), ("fps", np.array(-3.0)), ("fps", np.array([1, 2])),
        ("positions_3d", np.array({"a": 1}, dtype=object)),
    ],
)  # fmt: skip
def test_broken_plain_arrays(tmp_path, part, value):
    write_h36m(tmp_path, [clip_labels()])
    with np.load(tmp_path / "tracks.npz") as file:
        arrays = {n: file[n] for n in file.files}
    arrays[f"S9/walk scene0012_0/{part}"] = value
    np.savez(tmp_path / "tracks.npz", **arrays)
    with pytest.raises(BiposeError, match=r"tracks\.npz: ") as error:
        H36M(tmp_path, positions="tracks.npz").index("test")
    assert "\n" not in str(error.value)


def test_plain_positions_without_a_camera(tmp_path):
    np.savez(
        tmp_path / "tracks.npz",
        **{"S9/Walking/positions_3d": np.random.default_rng(0).normal(0, 0.4, (6, 32, 3)), "S9/Walking/fps": 30},
    )
    track = H36M(tmp_path, positions="tracks.npz").index("test").tracks[0]
    assert (track.clip, track.cluster, track.fps) == ("S9/Walking", "S9", 30)
