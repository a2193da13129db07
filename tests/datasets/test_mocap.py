"""BVH as 3D tracks: kinematics against scipy, names, units, resampling, cameras, splits, and the captured takes."""

import itertools
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bipose_lit.datasets.cameras import project
from bipose_lit.datasets.mocap import HEAD_TOPS, RIGS, Mocap, body_length, joints_of, resample
from bipose_lit.datasets.synthetic.bvh import load_bvh
from bipose_lit.skeletons import H36M
from bipose_lit.types import VISIBLE, BiposeError

AT = {name: i for i, name in enumerate(H36M.joints)}


def sided(side, sign):
    leg = (
        f"{side}UpLeg",
        (1.5 * sign, -1.5, 0.5),
        (f"{side}Leg", (0, -7, 0), (f"{side}Foot", (0, -7.5, 0), ("end", (0, -0.5, 2)))),
    )
    arm = (f"{side}Shoulder", (0, 0, 0), (f"{side}Arm", (3 * sign, 1, 0),
           (f"{side}ForeArm", (5 * sign, 0, 0), (f"{side}Hand", (3.5 * sign, 0, 0), ("end", (1, 0, 0))))))  # fmt: skip
    return leg, arm


def cmu(head=(0, 1.8, 0)):
    (left_leg, left_arm), (right_leg, right_arm) = sided("Left", 1), sided("Right", -1)
    neck = ("Neck", (0, 0, 0), ("Neck1", (0, 1.8, 0), ("Head", (0, 1.8, 0), ("end", head))))
    return ("Hips", (0, 0, 0), left_leg, right_leg, ("LowerBack", (0, 0, 0), ("Spine", (0, 2, 0),
            ("Spine1", (0, 2, 0), neck, left_arm, right_arm))))  # fmt: skip


def hierarchy(node, depth=0, order="ZYX"):
    """Lines and the names of the nodes that have channels."""
    name, offset, *children = node
    if name == "end":
        return ["End Site", "{", f"OFFSET {offset[0]} {offset[1]} {offset[2]}", "}"], []
    turns = " ".join(f"{axis}rotation" for axis in order)
    channels = f"CHANNELS 6 Xposition Yposition Zposition {turns}" if not depth else f"CHANNELS 3 {turns}"
    lines = [f"{'JOINT' if depth else 'ROOT'} {name}", "{", f"OFFSET {offset[0]} {offset[1]} {offset[2]}", channels]
    names = [name]
    for child in children:
        more, found = hierarchy(child, depth + 1, order)
        lines, names = lines + more, names + found
    return [*lines, "}"], names


def write(path, tree=None, frames=24, fps=120.0, scale=1.0, seed=0, step=0.3, order="ZYX", start=10.0):
    tree = cmu() if tree is None else tree
    lines, names = hierarchy(tree, order=order)
    lines = [
        f"OFFSET {' '.join(str(float(w) * scale) for w in li.split()[1:])}" if li.startswith("OFFSET") else li
        for li in lines
    ]
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, start, (1, 3 + 3 * len(names))) + np.cumsum(
        rng.normal(0, step, (frames, 3 + 3 * len(names))), axis=0
    )
    rows[:, :3] *= scale / 10
    path.parent.mkdir(parents=True, exist_ok=True)
    text = ["HIERARCHY", *lines, "MOTION", f"Frames: {frames}", f"Frame Time: {1 / fps:.7f}"]
    path.write_text("\n".join([*text, *(" ".join(f"{v:.6f}" for v in row) for row in rows)]) + "\n")
    return rows


@pytest.mark.parametrize("order", ["".join(o) for o in itertools.permutations("XYZ")])
def test_two_joints_with_any_order_of_channels(tmp_path, order):
    tree = ("A", (1, 2, 3), ("B", (0, -4, 0), ("end", (0.5, -3, 1))))
    rows = write(tmp_path / "a.bvh", tree, frames=3, order=order)
    clip = load_bvh(tmp_path / "a.bvh")
    for row, place in zip(rows, clip.positions, strict=True):
        a, b = (Rotation.from_euler(order, row[i : i + 3], degrees=True) for i in (3, 6))  # intrinsic, as BVH has it
        root = row[:3]
        knee = root + a.apply([0, -4, 0])
        np.testing.assert_allclose(place, [root, knee, knee + (a * b).apply([0.5, -3, 1])], atol=1e-4)


def test_bones_keep_their_length_and_the_rest_pose_is_the_offsets(tmp_path):
    write(tmp_path / "a.bvh", frames=40, step=3.0)
    clip = load_bvh(tmp_path / "a.bvh")
    bones = [(i, p) for i, p in enumerate(clip.parents) if p >= 0]
    lengths = np.stack([np.linalg.norm(clip.positions[:, i] - clip.positions[:, p], axis=-1) for i, p in bones])
    np.testing.assert_allclose(lengths, lengths[:, :1] * np.ones((1, 40)), atol=1e-9)
    rest = {n: clip.rest[i] for i, n in enumerate(clip.names)}
    np.testing.assert_allclose(rest["LeftFoot"], [1.5, -16, 0.5])
    np.testing.assert_allclose(rest["Head/end"], [0, 9.4, 0])
    joints = joints_of(clip.rest[None], clip.names, {j: RIGS["cmu-motionbuilder"][j] for j in H36M.joints})[0]
    np.testing.assert_allclose(joints[AT["pelvis"]], [0, -1.5, 0.5])
    np.testing.assert_allclose(joints[AT["right_wrist"]], [-11.5, 5, 0])
    np.testing.assert_allclose(joints[AT["head_top"]], [0, 9.4, 0])
    assert body_length(joints) == pytest.approx(14.5 + np.hypot(3.5, 0.5) + 3.8 + 1.8 + 1.8)


def test_a_track(tmp_path):
    write(tmp_path / "cmu" / "01_02.bvh")
    index = Mocap(tmp_path, test_fraction=0, val_fraction=0, cameras=3, fps=60).index("train")
    assert index.name == "mocap/train[frame-box]"
    assert [t.clip for t in index.tracks] == [f"cmu/01_02/ring{i}of3" for i in range(3)]
    assert index.clusters == ("cmu/01",)
    assert index.skipped == {}
    clip = load_bvh(tmp_path / "cmu" / "01_02.bvh")
    at = {n: i for i, n in enumerate(clip.names)}
    for track in index.tracks:
        assert (len(track), track.fps, track.image_size, track.visible.min()) == (12, 60, (1000, 1000), VISIBLE)
        assert len(track.frames) == 12
        back = (
            track.joints_3d.astype(np.float64) - track.camera.translation
        ) @ track.camera.rotation  # into the world again
        expected = clip.positions[::2, at["LeftForeArm"]] * 25.4 / 0.45
        np.testing.assert_allclose(back[:, AT["left_elbow"]], expected, atol=0.01)
        np.testing.assert_allclose(
            project(track.camera, track.joints_3d.astype(np.float64))[0], track.joints, atol=1e-2
        )
        assert (track.joints_3d[..., 2] > 2500).all()
    assert len({u for t in index.tracks for u in t.uid.tolist()}) == 36


@pytest.mark.parametrize(
    ("scale", "unit"), [(1.0, 25.4 / 0.45), (2.2, 25.4), (5.6, 10.0), (56.0, 1.0), (0.056, 1000.0)], ids=str
)
def test_units(tmp_path, scale, unit):
    write(tmp_path / "1_1.bvh", scale=scale)
    reader = Mocap(tmp_path, test_fraction=0, val_fraction=0, cameras=1)
    track = reader.index("train").tracks[0]
    length = np.linalg.norm(track.joints_3d[0, AT["left_hip"]] - track.joints_3d[0, AT["left_knee"]])
    assert length == pytest.approx(7 * scale * unit, rel=1e-3)
    fixed = Mocap(tmp_path, test_fraction=0, val_fraction=0, cameras=1, scale=2 * unit).index("train").tracks[0]
    assert np.linalg.norm(fixed.joints_3d[0, 4] - fixed.joints_3d[0, 5]) == pytest.approx(2 * length, rel=1e-3)


def test_a_unit_that_cannot_be_told(tmp_path):
    write(tmp_path / "a.bvh", scale=0.001)
    with pytest.raises(BiposeError, match=r"from ankle to head its bones are .* give scale"):
        Mocap(tmp_path, test_fraction=0, val_fraction=0).index("train")
    assert Mocap(tmp_path, test_fraction=0, val_fraction=0, scale=50_000).index("train").tracks


def test_a_head_without_a_length_is_estimated_and_told(tmp_path):
    write(tmp_path / "a.bvh", cmu(head=(0, 0, 0)))
    index = Mocap(tmp_path, test_fraction=0, val_fraction=0, cameras=1).index("train")
    assert index.skipped == {"head_top estimated, as the file has no node for it": ["a"]}
    joints = index.tracks[0].joints_3d.astype(np.float64)
    neck, skull, top = (joints[:, AT[n]] for n in ("thorax", "upper_neck", "head_top"))
    np.testing.assert_allclose(top, 2 * skull - neck, atol=1e-2)
    assert HEAD_TOPS["cmu-motionbuilder"] == {"Head": 2.0, "Neck1": -1.0}


def metarig(neck=0.9, face=1.3):
    """Blender's metarig, one bone long, with its neck and face at these heights above the chest."""

    def leg(x, s):
        return (
            f"thigh.{x}",
            (0.1 * s, 0, 0),
            (f"shin.{x}", (0, -0.45, 0), (f"foot.{x}", (0, -0.42, 0), ("end", (0, -0.1, 0.2)))),
        )

    def arm(x, s):
        return (f"upper_arm.{x}", (0.2 * s, 0.3, 0), (f"forearm.{x}", (0.3 * s, 0, 0), ("end", (0.25 * s, 0, 0))))

    head = ("neck", (0, neck - 0.6, 0), ("face", (0, face - neck, 0.1), ("end", (0, 0.05, 0.1))))
    return ("spine", (0, 0, 0), leg("L", 1), leg("R", -1), ("spine.001", (0, 0.3, 0), arm("L", 1), arm("R", -1), head))


def test_the_head_of_blenders_metarig(tmp_path):
    """The face's end is no node of ours; the head's top lies 1.65 times as far from the neck as the face does."""
    write(tmp_path / "a.bvh", metarig(0.9, 1.08), start=0.0, step=0.01)
    index = Mocap(tmp_path, test_fraction=0, val_fraction=0, cameras=1, fps=120).index("train")
    clip = load_bvh(tmp_path / "a.bvh")
    track = index.tracks[0]
    back = (track.joints_3d.astype(np.float64) - track.camera.translation) @ track.camera.rotation
    neck, face = (clip.positions[:, clip.names.index(n)] * 1000 for n in ("neck", "face"))
    np.testing.assert_allclose(back[:, AT["upper_neck"]], face, atol=0.01)
    np.testing.assert_allclose(back[:, AT["thorax"]], neck, atol=0.01)
    np.testing.assert_allclose(back[:, AT["head_top"]], neck + 1.65 * (face - neck), atol=0.01)
    np.testing.assert_allclose(
        back[:, AT["left_wrist"]], clip.positions[:, clip.names.index("forearm.L/end")] * 1000, atol=0.01
    )
    assert index.skipped == {"head_top estimated, as the file has no node for it": ["a"]}


def test_the_rest_pose_at_the_start_is_left_out_and_told(tmp_path):
    rows = write(tmp_path / "a.bvh", frames=24, start=30.0)
    whole = Mocap(tmp_path, test_fraction=0, val_fraction=0, cameras=1, fps=120).index("train")
    assert (len(whole.tracks[0]), whole.skipped) == (24, {})
    text = (tmp_path / "a.bvh").read_text().splitlines()
    at = next(i for i, line in enumerate(text) if line.startswith("Frame Time")) + 1
    text[at] = " ".join("0" for _ in rows[0])
    (tmp_path / "a.bvh").write_text("\n".join(text) + "\n")
    index = Mocap(tmp_path, test_fraction=0, val_fraction=0, cameras=1, fps=120).index("train")
    assert index.skipped == {"first frame is the rest pose, left out": ["a"]}
    (track,) = index.tracks
    assert len(track) == len(track.frames) == 23

    def world(t):
        return (t.joints_3d.astype(np.float64) - t.camera.translation) @ t.camera.rotation

    np.testing.assert_allclose(world(track), world(whole.tracks[0])[1:], atol=0.01)


def test_resampling(tmp_path):
    points = np.arange(20.0)[:, None, None] ** 2 * np.ones((20, 2, 3))
    np.testing.assert_array_equal(resample(points, 120.0, 60.0, tmp_path), points[::2])
    np.testing.assert_array_equal(resample(points, 50.0, 50.0, tmp_path), points)
    up = resample(points, 25.0, 50.0, tmp_path)
    assert len(up) == 39
    np.testing.assert_array_equal(up[::2], points)
    np.testing.assert_allclose(up[1::2], (points[1:] + points[:-1]) / 2)
    assert len(resample(points[:1], 120, 50.0, tmp_path)) == 1
    other = resample(points, 30.0, 24.0, tmp_path)
    line = np.interp(np.arange(len(other)) / 24 * 30, np.arange(20), points[:, 0, 0])
    np.testing.assert_allclose(other[:, 0, 0], line)
    with pytest.raises(BiposeError, match="the limit is"):
        resample(np.zeros((2, 1, 1)), 1e-4, 2000.0, tmp_path)


def test_a_long_take_does_not_drift(tmp_path):
    """CMU's files say 0.0083333: 120.00048 frames per second, an eighth of a frame off after 3,000."""
    text = ["HIERARCHY", "ROOT A", "{", "OFFSET 0 0 0", "CHANNELS 3 Xposition Yposition Zposition", "}", "MOTION"]
    text += ["Frames: 3001", "Frame Time: 0.0083333", *(f"{i * i % 97} 0 0" for i in range(3001))]
    (tmp_path / "a.bvh").write_text("\n".join(text))
    clip = load_bvh(tmp_path / "a.bvh")
    assert clip.fps == 120
    assert clip.duration == 25
    half = resample(clip.positions, clip.fps, 60.0, tmp_path)
    np.testing.assert_array_equal(half, clip.positions[::2])
    fifty = resample(clip.positions, clip.fps, 50.0, tmp_path)
    assert len(fifty) == 1251
    np.testing.assert_allclose(fifty[::5], clip.positions[::12], atol=1e-9)


def test_subjects_and_takes_are_held_out(tmp_path):
    for subject, take in itertools.product(range(1, 7), range(1, 4)):
        write(tmp_path / "cmu" / f"{subject:02d}_{take:02d}.bvh", frames=2, seed=subject)
    options = {"test_fraction": 0.3, "val_fraction": 0.2, "cameras": 1}
    parts = {s: Mocap(tmp_path, **options).index(s) for s in ("train", "val", "test")}
    assert [len(parts[s].clusters) for s in parts] == [3, 1, 2]
    assert len({c for p in parts.values() for c in p.clusters}) == 6
    takes = {s: Mocap(tmp_path, hold_out_by="take", **options).index(s) for s in ("train", "val", "test")}
    assert [len(takes[s].tracks) for s in takes] == [9, 3, 6]


def test_chosen_cameras(tmp_path):
    write(tmp_path / "07_01.bvh")
    camera = {"id": "c", "K": [[900, 0, 320], [0, 900, 240], [0, 0, 1]], "R": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
              "t": [0, 0, 6000], "size": [640, 480]}  # fmt: skip
    (tmp_path / "cameras.json").write_text(json.dumps({"07": [camera]}))
    reader = Mocap(tmp_path, cameras="cameras.json", test_fraction=0, val_fraction=0)
    (track,) = reader.index("train").tracks
    assert (track.clip, track.image_size) == ("07_01/c", (640, 480))
    write(tmp_path / "08_01.bvh")
    with pytest.raises(BiposeError, match="no cameras of subject 08"):
        Mocap(tmp_path, cameras="cameras.json", test_fraction=0, val_fraction=0).index("train")
    (tmp_path / "cameras.json").write_text(json.dumps([camera | {"t": [0, 0, -6000]}]))
    with pytest.raises(
        BiposeError,
        match=r"no train takes .*never in front of the camera: 07_01/c; are the cameras' places in millimetres",
    ):
        Mocap(tmp_path, cameras="cameras.json", test_fraction=0, val_fraction=0).index("train")


def test_unknown_nodes_are_listed_and_can_be_named(tmp_path):
    write(tmp_path / "a.bvh")
    text = (tmp_path / "a.bvh").read_text().replace("LeftForeArm", "L_Ellbow").replace("Neck1", "Nacken")
    (tmp_path / "a.bvh").write_text(text)
    options = {"test_fraction": 0, "val_fraction": 0, "cameras": 1}
    with pytest.raises(
        BiposeError, match="lacks the nodes LeftForeArm, Neck1 of the rig cmu-motionbuilder; its own are Hips, "
    ) as error:
        Mocap(tmp_path, **options).index("train")
    assert "L_Ellbow" in str(error.value)
    names = {j: next(iter(mix)) for j, mix in RIGS["cmu-motionbuilder"].items()}
    names |= {"left_elbow": "L_Ellbow", "thorax": "Nacken", "pelvis": "Hips"}
    assert Mocap(tmp_path, names=names, **options).index("train").tracks
    del names["pelvis"]
    with pytest.raises(BiposeError, match="look at pelvis"):
        Mocap(tmp_path, names=names, **options)
    (tmp_path / "a.bvh").write_text(text.replace("L_Ellbow", "LeftArm").replace("Nacken", "Neck1"))
    with pytest.raises(BiposeError, match=r"lacks the nodes LeftForeArm|has twice the nodes LeftArm"):
        Mocap(tmp_path, **options).index("train")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("Frames: 24", "Frames: 1e999", "inf frames"),
        ("Frames: 24", "Frames: nan", "nan frames"),
        ("Frames: 24", "Frames: 9999999999", "1e\\+10 frames"),
        ("Frame Time: 0.0083333", "Frame Time: inf", "a frame time"),
        ("Frame Time: 0.0083333", "Frame Time: 1e-320", "a frame time"),
        ("OFFSET 0.0 -7.0 0.0", "OFFSET 0.0 nan 0.0", "an offset that is not finite"),
        ("OFFSET 0.0 -7.0 0.0", "OFFSET 0.0 -1e308 0.0", "an offset that is not finite"),
        ("OFFSET 0.0 -7.0 0.0", "OFFSET 0.0 -7000.0 0.0", "give scale"),
        ("CHANNELS 3", "CHANNELS \N{SUPERSCRIPT THREE}", "unexpected"),
        ("CHANNELS 3", "CHANNELS 99999999999999999999", "unexpected"),
        ("JOINT Spine\n", "JOINT Sp\x00\x1bne\n", "lacks the nodes Spine of"),
    ],
)
def test_broken_files(tmp_path, old, new, told):
    write(tmp_path / "a.bvh")
    write(tmp_path / "b.bvh")
    text = (tmp_path / "a.bvh").read_text()
    assert old in text
    (tmp_path / "a.bvh").write_text(text.replace(old, new, 1))
    with pytest.raises(BiposeError, match=told) as error:
        Mocap(tmp_path, test_fraction=0, val_fraction=0).index("train")
    assert "\n" not in str(error.value)
    assert str(error.value).isprintable()
    index = Mocap(tmp_path, test_fraction=0, val_fraction=0, strict=False, cameras=1).index("train")
    assert [t.clip for t in index.tracks] == ["b/ring0of1"]
    assert list(index.skipped) == ["files left out"]


def test_odd_names_of_nodes_that_no_joint_needs(tmp_path):
    write(tmp_path / "a.bvh")
    text = (tmp_path / "a.bvh").read_text()
    assert "ROOT Hips" in text  # the pelvis is the middle of the hips' joints
    (tmp_path / "a.bvh").write_text(text.replace("ROOT Hips", "ROOT H\x00\x1bps"))
    assert len(Mocap(tmp_path, test_fraction=0, val_fraction=0).index("train").tracks) == 4


def test_what_would_not_fit_into_memory_is_refused_before(tmp_path):
    ends = "\n".join("End Site\n{\nOFFSET 0 0 0\n}" for _ in range(3000))
    rows = "0\n" * 3000
    (tmp_path / "a.bvh").write_text(
        f"HIERARCHY\nROOT A\n{{\nOFFSET 0 0 0\nCHANNELS 1 Xrotation\n{ends}\n}}\nMOTION\nFrames: 3000\nFrame Time: 0.01\n{rows}"
    )
    with pytest.raises(BiposeError, match="3000 frames of 3001 nodes"):
        load_bvh(tmp_path / "a.bvh")


def test_arguments(tmp_path):
    with pytest.raises(BiposeError, match="no such folder"):
        Mocap(tmp_path / "none")
    with pytest.raises(BiposeError, match=r"no \.bvh file"):
        Mocap(tmp_path)
    write(tmp_path / "a.bvh", frames=2)
    for options, told in (
        ({"cameras": 0}, "cameras 0"), ({"fps": 0}, "fps 0"), ({"fps": float("nan")}, "fps nan"), ({"distance": 1}, "distance"),
        ({"elevation": 90}, "elevation"), ({"scale": "feet"}, "scale"), ({"scale": -1}, "scale"), ({"box_rule": "x"}, "box_rule"),
        ({"hold_out_by": "x"}, "hold_out_by"), ({"test_fraction": 1}, "test_fraction"), ({"image_size": (1, 2)}, "image_size"),
    ):  # fmt: skip
        with pytest.raises(BiposeError, match=told):
            Mocap(tmp_path, **options)
    with pytest.raises(BiposeError, match="none of train, val, test"):
        Mocap(tmp_path).index("dev")
    with pytest.raises(BiposeError, match="no test takes; raise test_fraction"):
        Mocap(tmp_path).index("test")
    with pytest.raises(BiposeError, match="cannot read the cameras"):
        Mocap(tmp_path, cameras="none.json", test_fraction=0, val_fraction=0).index("train")


@pytest.mark.real_data
def test_captured_takes(real_data):
    reader = Mocap(real_data / "mocap", cameras=1)
    parts = {s: reader.index(s) for s in ("train", "val", "test")}
    tracks = [t for p in parts.values() for t in p.tracks]
    assert len({t.clip.rpartition("/")[0] for t in tracks}) == len(reader.files) == 10
    assert {c for p in parts.values() for c in p.clusters} == {
        *(f"cmu/{n}" for n in ("01", "02", "05", "12", "131")), *(f"reactidle/{n}" for n in ("001", "002", "003"))
    }  # fmt: skip
    left_out = {
        reason: {c for p in parts.values() for c in p.skipped.get(reason, ())}
        for p in parts.values()
        for reason in p.skipped
    }
    assert left_out.pop("first frame is the rest pose, left out") == {"cmu/01_01", "cmu/cmu_12_01_walk"}
    (estimated,) = left_out.values()
    assert estimated == {
        "cmu/02_01",
        "cmu/05_06",
        "reactidle/001_acted",
        "reactidle/002_acted",
        "reactidle/003_genuine",
    }
    limbs = {"left_hip-left_knee", "left_knee-left_ankle", "right_shoulder-right_elbow", "right_elbow-right_wrist"}
    for track in tracks:
        assert (track.visible == VISIBLE).all()
        joints = track.joints_3d.astype(np.float64)
        for limb in limbs:
            a, b = (AT[n] for n in limb.split("-"))
            length = np.linalg.norm(joints[:, a] - joints[:, b], axis=-1)
            assert 140 < length.mean() < 520
            assert length.std() / length.mean() < (0.005 if track.clip.startswith("cmu") else 0.05), (track.clip, limb)
        down = joints[..., 1]  # camera y; the camera looks down by 10 degrees, the person stands most of the time
        assert np.median(down[:, AT["left_ankle"]] - down[:, AT["head_top"]]) > 1000
        # Knees bend forward: seen along the pelvis' axes, a bent knee lies in front of the middle of hip and ankle.
        hip, knee, ankle, other = (joints[:, AT[n]] for n in ("left_hip", "left_knee", "left_ankle", "right_hip"))
        ahead = np.cross(hip - other, joints[:, AT["thorax"]] - joints[:, AT["pelvis"]])
        bend = ((knee - (hip + ankle) / 2) * ahead).sum(-1) / np.linalg.norm(ahead, axis=-1)
        assert (bend[np.abs(bend) > 50] > 0).mean() > 0.95 if (np.abs(bend) > 50).any() else True, track.clip
