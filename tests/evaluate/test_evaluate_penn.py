"""Penn Action's measure: counted by hand, by a plain loop, and on the real labels; and predictions of every form."""

import json

import numpy as np
import pytest
import scipy.io

from bipose_lit.datasets.penn import PennAction
from bipose_lit.evaluate.command import evaluate as command
from bipose_lit.evaluate.penn import evaluate
from bipose_lit.metrics.video_pck import BY_PART
from bipose_lit.skeletons import PENN_ACTION
from bipose_lit.types import NORMS, BiposeError

K = 13
LEFT_SHOULDER, RIGHT_HIP = PENN_ACTION.index("left_shoulder"), PENN_ACTION.index("right_hip")


def add_clip(root, name, joints, boxes, train=-1, **changes):
    """Labels alone; `joints` (T, 13, 2) and `boxes` (T, 4) corners, both 1-based."""
    T = len(joints)
    content = {
        "x": joints[..., 0], "y": joints[..., 1], "visibility": np.ones((T, K), np.uint8), "bbox": boxes,
        "dimensions": np.array([[480, 640, T]], np.uint16), "nframes": np.uint8(T % 256), "train": np.int32(train),
        "action": "jump_rope", "pose": "front",
    } | changes  # fmt: skip
    (root / "labels").mkdir(exist_ok=True)
    scipy.io.savemat(root / "labels" / f"{name}.mat", content)


def put_json(path, predictions):
    path.write_text(json.dumps({name: np.asarray(p).tolist() for name, p in predictions.items()}))
    return path


def plain(clips):
    """The formula, joint by joint: clips is a list of (pred, joints, visible, boxes); boxes have areas."""
    hits = {(t, n): [[] for _ in range(K)] for t in (0.05, 0.1, 0.2) for n in ("bbox", "torso")}
    areas = {n: [[] for _ in range(K)] for n in ("bbox", "torso")}
    distances = []
    for pred, joints, visible, boxes in clips:
        for t in range(len(joints)):
            sizes = {"bbox": max(boxes[t][2] - boxes[t][0], boxes[t][3] - boxes[t][1])}
            if visible[t][LEFT_SHOULDER] and visible[t][RIGHT_HIP]:
                a, b = joints[t][LEFT_SHOULDER], joints[t][RIGHT_HIP]
                sizes["torso"] = ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5
            for k in range(K):
                if not visible[t][k]:
                    continue
                d = ((pred[t][k][0] - joints[t][k][0]) ** 2 + (pred[t][k][1] - joints[t][k][1]) ** 2) ** 0.5
                distances.append(d)
                for name, size in sizes.items():
                    for threshold in (0.05, 0.1, 0.2):
                        hits[threshold, name][k].append(d / size <= threshold)
                    areas[name][k].append(max(0.0, 1 - d / size / 0.2))

    def mean(values):
        return sum(values) / len(values)

    found = {"mpjpe_px": mean(distances)}
    rows = {f"pck@{t:g}[{n}]": h for (t, n), h in hits.items()} | {f"auc@0.2[{n}]": a for n, a in areas.items()}
    for metric, per_joint in rows.items():
        found[metric] = mean([v for joint in per_joint for v in joint])
        for group, members in PENN_ACTION.groups.items() if metric in BY_PART else ():
            found[f"{metric}/{group}"] = mean([v for k in members for v in per_joint[k]])
        if metric.startswith("pck@0.2"):
            found[metric.replace("]", ",joint_mean]")] = mean([mean(joint) for joint in per_joint])
    return found


def grid(T=2):
    """Joints that are 20 px apart, in a box of 60 x 100."""
    joints = np.zeros((T, K, 2))
    joints[..., 0] = 50 + 20 * np.arange(K)
    joints[..., 1] = 60
    return joints, np.tile([11.0, 21.0, 71.0, 121.0], (T, 1))


def test_the_threshold_counts_and_the_longer_side_is_the_size(tmp_path):
    joints, boxes = grid(1)
    add_clip(tmp_path, "0001", joints, boxes)
    pred = joints.copy()
    pred[0, 0, 1] += 20.0  # exactly 0.2 x (121 - 21): a hit
    pred[0, 1] += (12.0, 16.0)  # the same by two sides
    pred[0, 2, 0] += 20.0 + 1e-9  # not any more
    pred[0, 3, 0] += 10.0  # exactly 0.1
    pred[0, 4, 0] -= 5.0  # exactly 0.05
    outcome = evaluate(tmp_path, put_json(tmp_path / "p.json", {"0001": pred}))
    m = outcome.metrics
    assert m["pck@0.2[bbox]"] == 12 / 13
    assert m["pck@0.1[bbox]"] == 10 / 13
    assert m["pck@0.05[bbox]"] == 9 / 13
    assert m["pck@0.2[bbox]/head"] == 1
    assert m["pck@0.2[bbox]/shoulder"] == 0.5
    assert m["auc@0.2[bbox]"] == pytest.approx((8 + 0.5 + 0.75) / 13)
    assert m["pck@0.2[bbox,joint_mean]"] == 12 / 13
    # The torso, joint 1 to joint 8, is 140 px: all are hits at 0.2, all but the three of 20 px at 0.1.
    assert m["pck@0.2[torso]"] == 1
    assert m["pck@0.1[torso]"] == 10 / 13
    assert list(m)[:2] == ["pck@0.2[bbox]", "pck@0.2[bbox,joint_mean]"]
    assert outcome.counts == {
        "clips": 1, "frames": 1, "joints": 13, "joints_not_visible": 0, "frames_without_torso": 0,
        "frames_without_box": 0, "clips_not_in_split": 0,
    }  # fmt: skip


def test_predictions_are_one_based_as_the_labels(tmp_path):
    joints, _ = grid(1)
    add_clip(tmp_path, "0001", joints, np.array([[1.0, 1.0, 6.0, 6.0]]))  # 0.2 of it is one pixel
    same = evaluate(tmp_path, put_json(tmp_path / "p.json", {"0001": joints}))
    assert same.metrics["pck@0.05[bbox]"] == 1
    assert any("first pixel is 1" in note for note in same.notes)
    zero_based = evaluate(tmp_path, put_json(tmp_path / "q.json", {"0001": joints - 1}))
    assert zero_based.metrics["pck@0.2[bbox]"] == 0  # off by the root of two


def test_placeholders_at_the_edge_are_skipped(tmp_path):
    joints, boxes = grid(2)
    visibility = np.ones((2, K), np.uint8)
    joints[0, 5], visibility[0, 5] = (1, 300), 0  # at the left edge
    joints[1, 8], visibility[1, 8] = (70, 1), 0  # the right hip, at the top: no torso either
    add_clip(tmp_path, "0001", joints, boxes, visibility=visibility)
    pred, _ = grid(2)
    pred[0, 7] += 500
    outcome = evaluate(tmp_path, put_json(tmp_path / "p.json", {"0001": pred}))
    assert outcome.metrics["pck@0.2[bbox]"] == 23 / 24
    assert outcome.metrics["pck@0.2[torso]"] == 11 / 12  # frame 0 alone
    assert outcome.counts["joints"] == 24
    assert outcome.counts["joints_not_visible"] == 2
    assert outcome.counts["frames_without_torso"] == 1


def test_long_clips_and_a_box_too_few(tmp_path):
    joints, boxes = grid(300)
    boxes[-2, 3] = 221  # 200 px high; the row after it is missing
    add_clip(tmp_path, "1154", joints, boxes[:-1])
    pred = joints.copy()
    pred[-1] += (0, 40.0)
    outcome = evaluate(tmp_path, put_json(tmp_path / "p.json", {"1154": pred}))
    assert outcome.metrics["pck@0.2[bbox]"] == 1  # 40 is 0.2 x 200, not 0.2 x 100
    assert outcome.counts["frames"] == 300
    assert any("last one repeated: 1154" in note for note in outcome.notes)


def test_a_box_without_area_gives_way_to_the_joints(tmp_path):
    joints, boxes = grid(1)
    add_clip(tmp_path, "0001", joints, boxes * 0)
    pred = joints + np.array([0, 0.2 * 241])  # the joints' box is 12 x 20 + 1 wide
    outcome = evaluate(tmp_path, put_json(tmp_path / "p.json", {"0001": pred}))
    assert outcome.metrics["pck@0.2[bbox]"] == 1
    assert outcome.counts["frames_without_box"] == 1


def test_a_box_counts_by_its_longer_side_whatever_the_other_is(tmp_path):
    joints, _ = grid(2)
    add_clip(tmp_path, "0001", joints, np.array([[11.0, 21.0, 61.0, 21.0], [11.0, 121.0, 61.0, 21.0]]))
    pred = joints.copy()
    pred[:, 0, 1] += 10.0  # 0.2 x 50
    pred[:, 1, 1] += 10.001
    outcome = evaluate(tmp_path, put_json(tmp_path / "p.json", {"0001": pred}))
    assert outcome.metrics["pck@0.2[bbox]"] == 24 / 26
    assert outcome.counts["frames_without_box"] == 0


def noisy_set(root, rng, clips=3):
    found, predictions = [], {}
    for number in range(clips):
        T = int(rng.integers(3, 9))
        joints = rng.uniform(10, 200, (T, K, 2))
        low = rng.uniform(1, 50, (T, 2))
        boxes = np.concatenate([low, low + rng.uniform(20, 200, (T, 2))], axis=1)
        visible = rng.random((T, K)) < 0.8
        name = f"{number:04d}"
        add_clip(root, name, joints, boxes, visibility=visible.astype(np.uint8))
        predictions[name] = joints + rng.normal(0, 12, joints.shape)
        found.append((predictions[name], joints, visible, boxes))
    return found, predictions


@pytest.mark.parametrize("seed", range(4))
def test_the_formula_as_a_plain_loop(tmp_path, seed):
    clips, predictions = noisy_set(tmp_path, np.random.default_rng(seed))
    metrics = evaluate(tmp_path, put_json(tmp_path / "p.json", predictions)).metrics
    expected = plain(clips)
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-12), name


def test_all_forms_of_predictions_are_the_same(tmp_path):
    _, predictions = noisy_set(tmp_path, np.random.default_rng(7))
    expected = evaluate(tmp_path, put_json(tmp_path / "p.json", predictions)).metrics
    np.savez_compressed(tmp_path / "p.npz", **predictions)
    assert evaluate(tmp_path, tmp_path / "p.npz").metrics == expected
    forms = {
        "xy": lambda p: {"x": p[..., 0], "y": p[..., 1]},
        "preds": lambda p: {"preds": p},
        "joints": lambda p: {"joints": p},
        "pos_img": lambda p: {"pos_img": p.transpose(2, 1, 0)},
    }
    for form, content in forms.items():
        (tmp_path / form).mkdir()
        for name, joints in predictions.items():
            scipy.io.savemat(tmp_path / form / f"{name}.mat", content(joints))
        assert evaluate(tmp_path, tmp_path / form).metrics == expected


def test_splits_and_clips_that_are_not_in_them(tmp_path):
    joints, boxes = grid()
    for number, train in enumerate((1, 1, -1, 0)):
        add_clip(tmp_path, f"{number:04d}", joints, boxes, train=train)
    path = put_json(tmp_path / "p.json", {f"{n:04d}": joints + 200 * n for n in range(4)})
    assert {s: evaluate(tmp_path, path, s).counts["clips"] for s in ("train", "val", "test", "all")} == {
        "train": 2, "val": 1, "test": 1, "all": 4,
    }  # fmt: skip
    outcome = evaluate(tmp_path, path, "train")
    assert outcome.metrics["pck@0.2[bbox]"] == 0.5
    assert outcome.counts["clips_not_in_split"] == 2
    assert any("2 predicted clips" in note for note in outcome.notes)
    assert outcome.about == {"split": "train", "person size": "labelled box"}
    with pytest.raises(BiposeError, match="split 'dev'"):
        evaluate(tmp_path, path, "dev")
    with pytest.raises(BiposeError, match=r"0001\.mat: is a file; give the folder that holds the folder labels"):
        evaluate(tmp_path / "labels" / "0001.mat", path)


def test_predictions_that_do_not_fit(tmp_path):
    joints, boxes = grid(3)
    for name in ("0001", "0002"):
        add_clip(tmp_path, name, joints, boxes)

    def refused(predictions, said):
        with pytest.raises(BiposeError, match=said) as caught:
            evaluate(tmp_path, put_json(tmp_path / "p.json", predictions))
        assert "\n" not in str(caught.value)

    refused({"0002": joints}, "no predictions for 1 of 2 clips, the first is 0001")
    refused({"0001": joints, "0002": joints[:2]}, "0002 has 2 frames, the labels have 3")
    refused({"0001": joints[:, :12], "0002": joints}, r"0001 has the shape \(3, 12, 2\), expected \(3, 13, 2\)")
    refused({"0001": joints, "0002": []}, "0002 has the shape")
    wrong = joints.copy()
    wrong[1, 4, 0] = 1e300
    refused({"0001": wrong, "0002": joints}, "no usable place in frame 1, joint 4")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", '{"0001": null}', '{"0001": [[["1", "2"]]]}', '{"0001": [[[1, NaN]]]}', '{"0001": [[[true, 1]]]}',
     '{"0001": [[[1, 2, 3]]]}', '{"0001": {"a": 1}}', '{"0001": [[[1e999, 1]]]}', '{"0001": [[], [[1, 2]]]}',
     '{"0001": [], "0001": []}', "[" * 100_000, '{"0001": ' + "[" * 5000 + "]" * 5000 + "}", "\ufeff{}",
     '{"0001": [[[1' + "0" * 400 + ", 1]]]}"],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_odd_json(tmp_path, text):
    add_clip(tmp_path, "0001", *grid(1))
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(BiposeError, match=r"p\.json") as caught:
        evaluate(tmp_path, tmp_path / "p.json")
    assert "\n" not in str(caught.value)


def test_odd_folders_and_archives(tmp_path):
    joints, boxes = grid(2)
    add_clip(tmp_path, "0001", joints, boxes)

    def refused(path, said):
        with pytest.raises(BiposeError, match=said) as caught:
            evaluate(tmp_path, path)
        assert "\n" not in str(caught.value)

    (tmp_path / "mats").mkdir()
    refused(tmp_path / "mats", "no predictions for 1 of 1")
    for content, said in (
        ({"x": joints[..., 0]}, "lacks x and y, preds"),
        ({"x": joints[..., 0], "y": joints[:1, :, 1]}, "must be equal"),
        ({"preds": "text"}, "preds is text"),
        ({"preds": joints[..., :1]}, "has the shape"),
        ({"preds": joints * np.nan}, "no usable place"),
    ):
        scipy.io.savemat(tmp_path / "mats" / "0001.mat", content)
        refused(tmp_path / "mats", said)
    (tmp_path / "p.npz").write_bytes(b"PK")
    refused(tmp_path / "p.npz", r"p\.npz")
    for value in (np.array(["a"]), np.array([{}], dtype=object), joints.astype(complex), joints > 0):
        np.savez(tmp_path / "p.npz", **{"0001": value})
        refused(tmp_path / "p.npz", "0001")
    (tmp_path / "p.txt").write_text("1 2 3")
    refused(tmp_path / "p.txt", "not a folder of .mat files")
    scipy.io.savemat(tmp_path / "labels" / "0003.mat", {"x": 1.0})
    refused(tmp_path / "p.npz", r"0003\.mat: lacks the variable")


@pytest.mark.real_data
def test_the_real_test_clips_by_loop_by_reader_and_by_command(real_data, tmp_path, capsys):
    root = real_data / "penn_action_mini"
    rng = np.random.default_rng(0)
    clips, predictions, frames = [], {}, 0
    for path in sorted((root / "labels").glob("*.mat")):
        raw = scipy.io.loadmat(path)
        if raw["train"].item() != -1:
            continue
        # MATLAB stores whole numbers in the smallest type: unsigned here and there.
        joints, boxes = np.stack([raw["x"], raw["y"]], -1).astype(float), raw["bbox"].astype(float)
        boxes = np.concatenate([boxes, boxes[-1:]])[: len(joints)]
        predictions[path.stem] = joints + rng.normal(0, 15, joints.shape)
        clips.append((predictions[path.stem], joints, raw["visibility"] == 1, boxes))
        frames += len(joints)
    (tmp_path / "p").mkdir()
    for name, joints in predictions.items():
        scipy.io.savemat(tmp_path / "p" / f"{name}.mat", {"x": joints[..., 0], "y": joints[..., 1]})
    outcome = command("penn", root, tmp_path / "p", tmp_path / "out.json", split="test")
    assert (outcome.counts["clips"], outcome.counts["frames"]) == (len(clips), frames) == (31, frames)
    expected = plain(clips)
    for name, value in expected.items():
        assert outcome.metrics[name] == pytest.approx(value, abs=1e-12), name
    assert 0.5 < expected["pck@0.1[bbox]"] < 0.99
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["metrics"] == dict(outcome.metrics)
    assert "pck@0.2" in capsys.readouterr().out
    # The reader's norms, which the training's metrics use, are the same sizes.
    index = PennAction(root).index("test")
    for track, (_, _, _, boxes) in zip(index.tracks, clips, strict=True):
        np.testing.assert_allclose(
            track.norms[:, NORMS.index("bbox")], (boxes[:, 2:] - boxes[:, :2]).max(axis=1), atol=1e-3
        )
