"""BVH: the parser on files written here, the retarget on a file of known motion, and both on captured ones."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bipose_lit.datasets.synthetic.body import INDEX, Proportions, angles_from_rotations, violations
from bipose_lit.datasets.synthetic.bvh import clips_in, load_bvh, motion_from_bvh
from bipose_lit.types import BiposeError

TINY = """HIERARCHY
ROOT Hips
{
  OFFSET 1 2 3
  CHANNELS 6 Zrotation Xrotation Yrotation Xposition Yposition Zposition
  JOINT Knee
  {
    OFFSET 0 -4 0
    CHANNELS 3 Yrotation Zrotation Xrotation
    End Site
    {
      OFFSET 0 -3 1
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.04
10 20 30 5 6 7 40 50 60
0 0 0 0 0 0 0 0 0
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "clip.bvh"
    path.write_text(text)
    return path


def test_the_parser_places_nodes_as_scipy_does(tmp_path: Path) -> None:
    clip = load_bvh(write(tmp_path, TINY))
    assert clip.names == ("Hips", "Knee", "Knee/end")
    assert clip.parents == (-1, 0, 1)
    assert clip.fps == 25.0
    hips = Rotation.from_euler("ZXY", [10, 20, 30], degrees=True)
    knee = Rotation.from_euler("YZX", [40, 50, 60], degrees=True)
    root = np.array([5.0, 6.0, 7.0])
    at = root + hips.apply([0, -4, 0])
    np.testing.assert_allclose(clip.positions[0], [root, at, at + (hips * knee).apply([0, -3, 1])], atol=1e-9)
    np.testing.assert_allclose(clip.rotations[0, 1], (hips * knee).as_matrix(), atol=1e-9)
    np.testing.assert_allclose(clip.positions[1], [[0, 0, 0], [0, -4, 0], [0, -7, 1]], atol=1e-9)
    np.testing.assert_allclose(clip.rest, [[1, 2, 3], [1, -2, 3], [1, -5, 4]])


def test_a_joints_own_position_replaces_its_offset_and_line_ends_do_not_matter(tmp_path: Path) -> None:
    text = TINY.replace(
        "CHANNELS 3 Yrotation Zrotation Xrotation",
        "CHANNELS 6 Xposition Yposition Zposition Yrotation Zrotation Xrotation",
    )
    text = text.replace("10 20 30 5 6 7 40 50 60", "0 0 0 5 6 7 1 -9 2 0 0 0").replace(
        "0 0 0 0 0 0 0 0 0\n", "0 0 0 0 0 0 0 -4 0 0 0 0\n"
    )
    clip = load_bvh(write(tmp_path, text.replace("\n", "\r\n")))
    np.testing.assert_allclose(clip.positions[0, 1], [6, -3, 9])


@pytest.mark.parametrize(
    ("change", "line", "what"),
    [
        (("10 20 30 5 6 7 40 50 60", "10 20 30 5 6 7 40 50"), 19, "8 numbers in a frame where the hierarchy has 9"),
        (("10 20 30", "10 twenty 30"), 19, "expected numbers"),
        (("10 20 30", "10 nan 30"), 19, "not finite"),
        (("0 0 0 0 0 0 0 0 0\n", ""), 19, "ends after 1 of 2 frames"),
        (("Frames: 2", "Frames: 1"), 20, "more rows"),
        (("Frames: 2", "Pictures: 2"), 17, "expected 'Frames"),
        (("Frames: 2", "Frames: 0"), 17, "0 frames"),
        (("Frame Time: 0.04", "Frame Time: 0"), 18, "frame time"),
        (("Yrotation Xposition", "Wrotation Xposition"), 5, "unknown channel 'Wrotation'"),
        (("CHANNELS 6", "CHANNELS 7"), 5, "unexpected"),
        (("OFFSET 0 -4 0", "OFFSET 0 -4"), 8, "unexpected"),
        (("ROOT Hips", "JOINT Hips"), 2, "outside of a ROOT"),
        (("MOTION\n", ""), 16, "unexpected"),
        (("JOINT Knee\n  {\n    OFFSET 0 -4 0", "JOINT Knee\n    OFFSET 0 -4 0\n  {"), 7, "expected '{' after Knee"),
        (("    OFFSET 0 -4 0\n", ""), 13, "Knee has no OFFSET"),
        (("      OFFSET 0 -3 1\n", ""), 12, "Knee/end has no OFFSET"),
        (("OFFSET 0 -4 0", "OFFSET 0 -4 0\n OFFSET 1 1 1"), 9, "a second OFFSET of Knee"),
        (("ROOT Hips\n{", "ROOT Hips\nROOT Hips\n{"), 3, "expected '{' after Hips"),
        (("ROOT Hips\n{", "ROOT Hips\nMOTION"), 3, "expected '{' after Hips"),
    ],
)
def test_broken_files_are_told_with_their_line(tmp_path: Path, change: tuple[str, str], line: int, what: str) -> None:
    path = write(tmp_path, TINY.replace(*change))
    with pytest.raises(BiposeError, match=what) as error:
        load_bvh(path)
    assert str(error.value).startswith(f"{path}:{line}:")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", range(0, len(TINY), 23))
def test_a_truncated_file_never_passes(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path, TINY[:keep])
    with pytest.raises(BiposeError):
        load_bvh(path)


@pytest.mark.parametrize(
    ("time", "fps"),
    [("0.0083333", 120.0), ("0.008333", 120.0), ("0.0166667", 60.0), ("0.033333", 30.0), ("0.041667", 24.0),
     ("0.0333667", 1 / 0.0333667), ("0.00833", 1 / 0.00833), ("3", 1 / 3), ("1.00001", 1.0)],
)  # fmt: skip
def test_rates_that_were_rounded_are_whole_numbers(tmp_path: Path, time: str, fps: float) -> None:
    assert load_bvh(write(tmp_path, TINY.replace("Time: 0.04", f"Time: {time}"))).fps == fps


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(BiposeError, match="cannot be read"):
        load_bvh(tmp_path / "none.bvh")
    with pytest.raises(BiposeError, match="no node for left_hip"):
        motion_from_bvh(write(tmp_path, TINY), 25.0, 1)


def rig(
    scale: float, pose: dict[str, tuple[float, float, float]], frames: int = 30, travel: float = 0.0, tpose: bool = True
) -> str:
    """A CMU-style file, arms out at rest, that holds a pose (degrees about z, y, x) and travels along +z."""
    out = "0 -4.5 0" if not tpose else "{s}5 0 0"
    lines: list[str] = []
    order: list[str] = []

    def node(name: str, offset: str, children: list[tuple], end: str = "0 0 0") -> None:
        lines.append(("ROOT " if not order else "JOINT ") + name)
        values = " ".join(f"{float(x) * scale:.6f}" for x in offset.split())
        lines.extend(["{", f"OFFSET {values}"])
        lines.append(
            "CHANNELS " + ("6 Xposition Yposition Zposition " if not order else "3 ") + "Zrotation Yrotation Xrotation"
        )
        order.append(name)
        for child in children:
            node(*child)
        if not children:
            values = " ".join(f"{float(x) * scale:.6f}" for x in end.split())
            lines.extend(["End Site", "{", f"OFFSET {values}", "}"])
        lines.append("}")

    def leg(side: str, s: str) -> tuple:
        return (
            f"{side}UpLeg",
            f"{s}1.5 -1 0",
            [(f"{side}Leg", "0 -7 0", [(f"{side}Foot", "0 -7 0", [(f"{side}ToeBase", "0 -0.6 2.4", [])])])],
        )

    def arm(side: str, s: str) -> tuple:
        bone = out.format(s=s)
        return (
            f"{side}Shoulder",
            "0 0 0",
            [(f"{side}Arm", f"{s}3 1 0", [(f"{side}ForeArm", bone, [(f"{side}Hand", bone, [])])])],
        )

    trunk = (
        "Spine",
        "0 2 0",
        [("Spine1", "0 2 0", [("Neck", "0 2 0", [("Head", "0 2 0", [])]), arm("Left", ""), arm("Right", "-")])],
    )
    node("Hips", "0 0 0", [leg("Left", ""), leg("Right", "-"), trunk])
    rows = []
    for i in range(frames):
        values = [0.0, 15.6 * scale, travel * scale * i / max(frames - 1, 1)]
        for name in order:
            values += pose.get(name, (0.0, 0.0, 0.0))
        rows.append(" ".join(f"{v:.6f}" for v in values))
    return (
        "HIERARCHY\n"
        + "\n".join(lines)
        + f"\nMOTION\nFrames: {frames}\nFrame Time: 0.041667\n"
        + "\n".join(rows)
        + "\n"
    )


HANGING = {"LeftArm": (-85.0, 0.0, 0.0), "RightArm": (85.0, 0.0, 0.0)}


@pytest.mark.parametrize("scale", [0.01, 1.0, 5.6])
def test_units_do_not_matter_and_travel_is_scaled_to_our_legs(tmp_path: Path, scale: float) -> None:
    person = Proportions(stature=1.8)
    motion = motion_from_bvh(write(tmp_path, rig(scale, HANGING, travel=14.0)), 25.0, 30, 0.0, person)
    legs = 1.8 * (0.530 - 0.039)
    way = motion.positions[-1, 0] - motion.positions[0, 0]
    np.testing.assert_allclose(way, [0, 0, legs * (29 / 25) / (29 / 24)], atol=1e-3)  # 14 units are its legs' length
    soles = motion.soles()[..., 1]
    assert np.abs(soles).max() < 0.01
    assert violations(motion.local_rotations()).max() < 1e-6


def test_left_stays_left_and_faces_ahead(tmp_path: Path) -> None:
    pose = HANGING | {"LeftUpLeg": (0.0, 0.0, -50.0), "LeftLeg": (0.0, 0.0, 70.0), "RightForeArm": (0.0, 90.0, 0.0)}
    motion = motion_from_bvh(write(tmp_path, rig(1.0, pose)), 25.0, 20, 0.0, Proportions())
    p = motion.positions[10]
    assert p[INDEX["left_hip"], 0] > 0 > p[INDEX["right_hip"], 0]
    assert p[INDEX["left_shoulder"], 0] > 0 > p[INDEX["right_shoulder"], 0]
    assert p[INDEX["left_knee"], 2] > p[INDEX["left_hip"], 2] + 0.2
    assert p[INDEX["right_wrist"], 2] > p[INDEX["right_elbow"], 2] + 0.15
    assert motion.frames[10, 0, 2, 2] > 0.99
    angles = angles_from_rotations(motion.local_rotations())[10]
    assert angles[INDEX["left_hip"], 0] == pytest.approx(50, abs=1)
    assert angles[INDEX["left_knee"], 0] == pytest.approx(70, abs=1)
    assert angles[INDEX["right_elbow"], 0] == pytest.approx(90, abs=2)


def test_the_rest_pose_does_not_matter(tmp_path: Path) -> None:
    """Arms out at rest and turned down, or hanging at rest: the same person."""
    out = write(tmp_path, rig(1.0, {"LeftArm": (-90.0, 0.0, 0.0), "RightArm": (90.0, 0.0, 0.0)}))
    a = motion_from_bvh(out, 25.0, 5, 0.0, Proportions())
    other = tmp_path / "hanging.bvh"
    other.write_text(rig(1.0, {}, tpose=False))
    b = motion_from_bvh(other, 25.0, 5, 0.0, Proportions())
    np.testing.assert_allclose(a.positions, b.positions, atol=1e-5)


def test_clips_lie_side_by_side_and_the_rest_frame_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, rig(1.0, HANGING, frames=49))
    starts = clips_in(path, 16, 24.0)
    assert len(starts) == 3
    assert np.diff(starts) == pytest.approx(16 / 24.0)
    for start in starts:
        assert len(motion_from_bvh(path, 24.0, 16, start, Proportions())) == 16
    with pytest.raises(BiposeError, match="do not fit"):
        motion_from_bvh(path, 24.0, 16, starts[-1] + 1.0)
    lines = path.read_text().splitlines()
    first = lines.index("MOTION") + 3
    lines[first] = " ".join(["0"] * len(lines[first].split()))
    path.write_text("\n".join(lines))
    assert clips_in(path, 16, 24.0)[0] == pytest.approx(1 / 24)


def test_heading_and_size_come_from_the_generator(tmp_path: Path) -> None:
    path = write(tmp_path, rig(1.0, HANGING, travel=10.0))
    a, b = (motion_from_bvh(path, 25.0, 8, 0.0, None, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(a.positions, b.positions)
    c = motion_from_bvh(path, 25.0, 8, 0.0, None, np.random.default_rng(5))
    assert np.abs(a.frames - c.frames).max() > 0.1


@pytest.mark.real_data
def test_captured_walks_walk_ahead_and_bones_keep_their_directions(real_data: Path) -> None:
    files = sorted((real_data / "mocap").rglob("*.bvh"))
    assert len(files) >= 8
    for path in files:
        clip = load_bvh(path)
        starts = clips_in(path, 32, 25.0)
        motion = motion_from_bvh(path, 25.0, 32, starts[len(starts) // 2], Proportions())
        assert violations(motion.local_rotations()).max() < 1e-6
        assert motion.soles()[..., 1].min() > -1e-6
        assert (motion.positions[:, INDEX["head_top"], 1] > motion.positions[:, INDEX["left_ankle"], 1] + 0.5).all()
        if "02_01" in path.name or "12_01" in path.name:
            way = motion.positions[-1, 0] - motion.positions[0, 0]
            ahead = motion.frames[:, 0, :, 2].mean(axis=0)
            assert (way * ahead).sum() > 0.95 * np.linalg.norm(way)
            at = np.arange(32) / 25.0 * clip.fps + starts[len(starts) // 2] * clip.fps
            name = {n: i for i, n in enumerate(clip.names)}
            for side in ("Left", "Right"):
                for ours, theirs in ((("knee", "ankle"), ("Leg", "Foot")), (("shoulder", "elbow"), ("Arm", "ForeArm"))):
                    u = np.diff(motion.positions[:, [INDEX[f"{side.lower()}_{j}"] for j in ours]], axis=1)[:, 0]
                    v = np.diff(clip.positions[np.rint(at).astype(int)][:, [name[side + j] for j in theirs]], axis=1)[
                        :, 0
                    ]
                    cosine = (u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
                    assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 8
