"""The measure of JHMDB and sub-JHMDB: counted by hand, by a plain loop, and on the real labels."""

import json
import shutil

import cv2
import numpy as np
import pytest
import scipy.io

from bipose_lit.datasets.jhmdb import JHMDB
from bipose_lit.evaluate.command import evaluate as command
from bipose_lit.evaluate.jhmdb import PARTS, evaluate
from bipose_lit.metrics.video_pck import BY_PART
from bipose_lit.skeletons import JHMDB as SKELETON
from bipose_lit.store import Predictions
from bipose_lit.types import NORMS, BiposeError

K = 15
LEFT_SHOULDER, RIGHT_HIP = SKELETON.index("left_shoulder"), SKELETON.index("right_hip")


def add_clip(root, clip, joints, marks=(2, 2, 2), folder="splits", **extra):
    """Labels alone; `joints` (T, 15, 2) 1-based, `marks` in the three split lists."""
    label = root / "joint_positions" / "walk" / clip / "joint_positions.mat"
    label.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(label, {"pos_img": joints.transpose(2, 1, 0), **extra})
    (root / folder).mkdir(exist_ok=True)
    name = "walk_test_split{}.txt" if folder == "splits" else "walk_test_split_{}.txt"
    for number, mark in enumerate(marks, 1):
        if mark is not None:
            with (root / folder / name.format(number)).open("a") as file:
                file.write(f"{clip}.avi {mark}\n")


def add_mask(root, clip, corners):
    """A puppet mask whose pixels reach from x1, y1 to x2, y2 (0-based, last ones included)."""
    mask = np.zeros((240, 320, len(corners)), np.uint8)
    for t, (x1, y1, x2, y2) in enumerate(corners):
        mask[y1 : y2 + 1, x1 : x2 + 1, t] = 1
    path = root / "puppet_mask" / "walk" / clip / "puppet_mask.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"part_mask": mask}, do_compression=True)


def put_json(path, predictions):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({f"walk/{name}": np.asarray(p).tolist() for name, p in predictions.items()}))
    return path


def plain(clips):
    """The formula, joint by joint: clips is a list of (pred, joints, size of each frame or None)."""
    rows, distances = {}, []
    for pred, joints, sizes in clips:
        for t in range(len(joints)):
            xs, ys = [p[0] for p in joints[t]], [p[1] for p in joints[t]]
            tight = max(max(xs) - min(xs), max(ys) - min(ys)) + 1
            a, b = joints[t][LEFT_SHOULDER], joints[t][RIGHT_HIP]
            size = {
                "bbox": tight if sizes is None else sizes[t],
                "torso": ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5,
            }
            for k in range(K):
                d = ((pred[t][k][0] - joints[t][k][0]) ** 2 + (pred[t][k][1] - joints[t][k][1]) ** 2) ** 0.5
                distances.append(d)
                for name, s in size.items():
                    for threshold in (0.05, 0.1, 0.2):
                        rows.setdefault(f"pck@{threshold:g}[{name}]", {}).setdefault(k, []).append(d / s <= threshold)
                    rows.setdefault(f"auc@0.2[{name}]", {}).setdefault(k, []).append(max(0.0, 1 - d / s / 0.2))

    def mean(values):
        return sum(values) / len(values)

    found = {"mpjpe_px": mean(distances)}
    for metric, per_joint in rows.items():
        found[metric] = mean([v for joint in per_joint.values() for v in joint])
        for group, members in SKELETON.groups.items() if metric in BY_PART else ():
            found[f"{metric}/{group}"] = mean([v for k in members for v in per_joint[k]])
        if metric.startswith("pck@0.2"):
            found[metric.replace("]", ",joint_mean]")] = mean([mean(joint) for joint in per_joint.values()])
            parts = [mean([mean(per_joint[k]) for k in SKELETON.groups[part]]) for part in PARTS]
            found[metric.replace("]", ",part_mean]")] = mean(parts)
    return found


def row(T=1):
    """Joints in a row, 10 px apart: their box is 141 px wide."""
    joints = np.zeros((T, K, 2))
    joints[..., 0], joints[..., 1] = 50 + 10 * np.arange(K), 60
    return joints


def test_the_size_is_the_masks_where_all_have_one(tmp_path):
    joints = row(2)
    add_clip(tmp_path, "a", joints)
    add_mask(tmp_path, "a", [(10, 20, 110, 40), (30, 20, 30, 70)])  # 100 px, and one column of 50
    pred = joints.copy()
    pred[0, 0, 1] += 20  # 0.2 x 100
    pred[0, 1, 1] += 20.001
    pred[1, 2, 1] += 10  # 0.2 x 50
    pred[1, 3, 1] += 10.001
    outcome = evaluate(tmp_path, put_json(tmp_path / "p.json", {"a": pred}))
    m = outcome.metrics
    assert m["pck@0.2[bbox]"] == 28 / 30
    assert m["pck@0.2[bbox]/belly"] == 1 / 2
    assert m["pck@0.2[bbox]/shoulder"] == 3 / 4
    assert m["pck@0.2[bbox,part_mean]"] == pytest.approx((6 + 3 / 4) / 7)  # neck and belly are no published parts
    assert outcome.about == {"split": "1", "lists": "splits", "person size": "puppet mask"}
    assert any("around the puppet mask, as published" in note for note in outcome.notes)
    index = JHMDB(tmp_path, box_rule="puppet-box").index("test")
    np.testing.assert_allclose(index.tracks[0].norms[:, NORMS.index("bbox")], [100, 50])


def test_the_size_is_the_joints_where_none_has_a_mask(tmp_path):
    add_clip(tmp_path, "a", row(2))
    pred = row(2)
    pred[0, 0, 1] += 28.2  # 0.2 x 141
    pred[1, 1, 1] += 28.201
    outcome = evaluate(tmp_path, put_json(tmp_path / "p.json", {"a": pred}))
    assert outcome.metrics["pck@0.2[bbox]"] == 29 / 30
    assert outcome.about["person size"] == "box around the joints"
    assert any("no puppet masks" in note for note in outcome.notes)


def test_masks_of_some_clips_or_frames_or_of_others_are_refused(tmp_path):
    for name in "abc":
        add_clip(tmp_path, name, row(2), (2, 1, 1))
    path = put_json(tmp_path / "p.json", {name: row(2) for name in "abc"})
    folder = tmp_path / "puppet_mask" / "walk"

    def refused(said):
        with pytest.raises(BiposeError, match=said) as caught:
            evaluate(tmp_path, path)
        assert "\n" not in str(caught.value)

    box = (10, 20, 110, 40)
    add_mask(tmp_path, "a", [box] * 2)
    add_mask(tmp_path, "c", [box] * 2)
    refused(r"b/puppet_mask\.mat: no such mask, though 2 of 3 clips have one")
    for corners, said in (
        ([box, (0, 0, 0, -1)], r"b/puppet_mask\.mat: no mask with an extent in frame 1 "),
        ([(4, 4, 4, 4), box], r"b/puppet_mask\.mat: no mask with an extent in frame 0 "),
        ([box], r"b/puppet_mask\.mat: 1 masks for 2 labelled frames"),
        ([box] * 3, r"b/puppet_mask\.mat: 3 masks for 2 labelled frames"),
    ):
        add_mask(tmp_path, "b", corners)
        refused(said)
        shutil.rmtree(folder / "b")
    add_mask(tmp_path, "b", [box] * 2)
    assert evaluate(tmp_path, path).metrics["pck@0.2[bbox]"] == 1
    pictures = tmp_path / "Rename_Images" / "walk" / "c"
    pictures.mkdir(parents=True)
    cv2.imwrite(str(pictures / "00001.png"), np.zeros((48, 64, 3), np.uint8))
    refused(r"c/puppet_mask\.mat: masks of 320x240 pixels for frames of 64x48")
    (folder / "b" / "puppet_mask.mat").write_bytes(b"<html>")
    refused(r"b/puppet_mask\.mat: not a readable MATLAB file")
    shutil.rmtree(folder)
    assert evaluate(tmp_path, path).about["person size"] == "box around the joints"


def test_published_means_of_lstm_pose_machines():
    # Its README's row of sub-JHMDB: 94.09 over all joints, 93.6 in the paper over the listed parts.
    values = [99.20, 98.97, 98.27, 96.67, 96.13, 98.83, 98.63, 90.17, 89.10, 96.40, 94.80, 85.93, 86.17, 91.90, 89.90]
    assert np.mean(values) == pytest.approx(94.07, abs=0.03)
    parts = [np.mean([values[k] for k in SKELETON.groups[part]]) for part in PARTS]
    assert np.mean(parts) == pytest.approx(93.65, abs=0.06)


def test_predictions_are_one_based_as_the_labels(tmp_path):
    add_clip(tmp_path, "a", row())
    add_mask(tmp_path, "a", [(10, 20, 15, 22)])  # 0.2 of 5 px is one pixel
    assert evaluate(tmp_path, put_json(tmp_path / "p.json", {"a": row()})).metrics["pck@0.05[bbox]"] == 1
    assert evaluate(tmp_path, put_json(tmp_path / "q.json", {"a": row() - 1})).metrics["pck@0.2[bbox]"] == 0


def test_absent_joints_are_skipped(tmp_path):
    visible = np.full((K, 1), 2)
    visible[3], visible[4] = 0, 1
    joints = row()
    joints[0, 5] = np.nan
    add_clip(tmp_path, "a", joints, visible=visible)
    pred = row()
    pred[0, 3] += 300
    pred[0, 4] += 300
    outcome = evaluate(tmp_path, put_json(tmp_path / "p.json", {"a": pred}))
    assert outcome.metrics["pck@0.2[bbox]"] == 12 / 13
    assert outcome.counts["joints"] == 13
    assert outcome.counts["frames_without_torso"] == 1  # joint 5 is the right hip
    assert np.isnan(outcome.metrics["pck@0.2[torso]"])


@pytest.mark.parametrize("seed", range(3))
def test_the_formula_as_a_plain_loop(tmp_path, seed):
    rng = np.random.default_rng(seed)
    clips, predictions = [], {}
    for number in range(3):
        T = int(rng.integers(2, 7))
        joints, name = rng.uniform(10, 200, (T, K, 2)), f"clip{number}"
        add_clip(tmp_path, name, joints)
        predictions[name] = joints + rng.normal(0, 20, joints.shape)
        sizes = None
        if seed:  # all clips have masks, or none
            corners = [(a, b, a + w, b + h) for a, b, w, h in rng.integers(1, 119, (T, 4))]
            add_mask(tmp_path, name, corners)
            sizes = [max(c[2] - c[0], c[3] - c[1]) for c in corners]
        clips.append((predictions[name], joints, sizes))
    metrics = evaluate(tmp_path, put_json(tmp_path / "p.json", predictions)).metrics
    expected = plain(clips)
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-12), name


def three_splits(root):
    """Clip a tests in splits 1 and 2, clip b in 2 and 3, whose predictions are all wrong."""
    add_clip(root, "a", row(2), (2, 2, 1))
    add_clip(root, "b", row(2), (1, 2, 2))
    return {"a": row(2), "b": row(2) + 999}


def test_the_mean_of_the_three_splits(tmp_path):
    path = put_json(tmp_path / "p.json", three_splits(tmp_path))
    single = [evaluate(tmp_path, path, split) for split in ("1", 2, "3")]
    assert [o.metrics["pck@0.2[bbox]"] for o in single] == [1, 0.5, 0]
    outcome = evaluate(tmp_path, path, "all")
    assert outcome.metrics["pck@0.2[bbox]"] == 0.5
    assert [outcome.metrics[f"pck@0.2[bbox]/split{n}"] for n in (1, 2, 3)] == [1, 0.5, 0]
    assert outcome.metrics["pck@0.2[bbox]/wrist"] == 0.5
    assert outcome.counts["clips"] == 4
    assert any("one set of predictions" in note for note in outcome.notes)


def test_predictions_of_each_split(tmp_path):
    three_splits(tmp_path)
    for number, clips in ((1, "a"), (2, "ab"), (3, "b")):
        put_json(tmp_path / "p" / f"split{number}.json", {clip: row(2) for clip in clips})
    outcome = evaluate(tmp_path, tmp_path / "p", "all")
    assert outcome.metrics["pck@0.2[bbox]"] == 1
    assert not any("one set of predictions" in note for note in outcome.notes)
    single = evaluate(tmp_path, tmp_path / "p", "2")
    assert single.counts["clips"] == 2
    assert single.metrics["pck@0.2[bbox]"] == 1
    (tmp_path / "p" / "split2.json").unlink()
    for split in ("2", "all"):
        with pytest.raises(BiposeError, match=r"p: has split1\.json, but nothing for split2"):
            evaluate(tmp_path, tmp_path / "p", split)
    assert evaluate(tmp_path, tmp_path / "p", "1").counts["clips_not_in_split"] == 0


def test_each_protocol_has_its_own_lists(tmp_path, capsys):
    add_clip(tmp_path, "a", row(), (2, None, None))
    add_clip(tmp_path, "b", row(), (2, None, None))
    path = put_json(tmp_path / "p.json", {"a": row(), "b": row() + 999})
    with pytest.raises(
        BiposeError, match=r"no folder sub_splits, whose lists sub_jhmdb scores; .*'bipose evaluate jhmdb'"
    ):
        command("sub_jhmdb", tmp_path, path)
    add_clip(tmp_path, "a", row(), (2, 2, 2), folder="sub_splits")
    own, sub = command("jhmdb", tmp_path, path), command("sub_jhmdb", tmp_path, path)
    assert (own.protocol, own.metrics["pck@0.2[bbox]"], own.about["lists"]) == ("jhmdb", 0.5, "splits")
    assert (sub.protocol, sub.metrics["pck@0.2[bbox]"], sub.about["lists"]) == ("sub_jhmdb", 1, "sub_splits")
    assert "JHMDB, not sub-JHMDB" in own.notes[0]
    assert "sub_splits (sub-JHMDB)" in sub.notes[0]
    assert sub.counts["clips_not_in_split"] == 1
    every = command("sub_jhmdb", tmp_path, path, split="all")
    assert every.about["split"] == "all"
    assert every.metrics["pck@0.2[bbox]/split3"] == 1
    assert "lists sub_splits" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "splits")
    with pytest.raises(BiposeError, match=r"no folder splits, whose lists jhmdb scores; .*'bipose evaluate sub_jhmdb'"):
        command("jhmdb", tmp_path, path)
    shutil.rmtree(tmp_path / "sub_splits")
    with pytest.raises(BiposeError, match="no folder sub_splits; give the folder of JHMDB's official layout"):
        command("sub_jhmdb", tmp_path, path)


def test_predictions_in_the_layout_of_the_labels(tmp_path):
    for name in ("a", "b"):
        add_clip(tmp_path, name, row(3))
    outcome = evaluate(tmp_path, tmp_path / "joint_positions")
    assert outcome.metrics["pck@0.05[bbox]"] == 1
    assert outcome.counts["clips"] == 2
    scipy.io.savemat(tmp_path / "joint_positions" / "walk" / "b.mat", {"pos_img": row(3).transpose(2, 1, 0)})
    with pytest.raises(BiposeError, match=r"holds walk/b/joint_positions\.mat and walk/b\.mat; keep one"):
        evaluate(tmp_path, tmp_path / "joint_positions")


def test_predictions_of_a_run_of_this_suite(tmp_path):
    joints = {"a": row(3), "b": row(2) + 7}
    for name, place in joints.items():
        add_clip(tmp_path, name, place)
    index = JHMDB(tmp_path).index("test")
    clip = np.concatenate([[i] * len(t) for i, t in enumerate(index.tracks)])
    run = Predictions(
        uid=np.concatenate([t.uid for t in index.tracks]), clip=clip,
        frame=np.concatenate([np.arange(len(t)) for t in index.tracks]),
        pred=np.concatenate([t.joints for t in index.tracks]), score=np.ones((5, K), np.float32),
        joints=np.concatenate([t.joints for t in index.tracks]), visible=np.full((5, K), 2, np.uint8),
        norms=np.ones((5, 5), np.float32), fps=np.zeros(5, np.float32), clips=tuple(t.clip for t in index.tracks),
        clusters=("", ""), joint_names=SKELETON.joints, data=index.name,
    )  # fmt: skip
    run.save(tmp_path / "predictions-test.npz")
    outcome = evaluate(tmp_path, tmp_path / "predictions-test.npz")
    assert outcome.metrics["pck@0.05[bbox]"] == 1
    assert outcome.metrics["auc@0.2[bbox]"] == pytest.approx(1, abs=1e-6)  # not a pixel off
    assert any("jhmdb/split1/test[clip-box]" in note and "first pixel is 0" in note for note in outcome.notes)


def test_folders_and_archives_name_clips_by_class_and_clip(tmp_path):
    rng = np.random.default_rng(0)
    predictions = {name: row(3) + rng.normal(0, 20, (3, K, 2)) for name in ("a", "b")}
    for name in predictions:
        add_clip(tmp_path, name, row(3))
    expected = evaluate(tmp_path, put_json(tmp_path / "p.json", predictions)).metrics
    np.savez(tmp_path / "p.npz", **{f"walk/{name}": p for name, p in predictions.items()})
    (tmp_path / "p" / "walk").mkdir(parents=True)
    for name, p in predictions.items():
        scipy.io.savemat(tmp_path / "p" / "walk" / f"{name}.mat", {"pos_img": p.transpose(2, 1, 0)})
    scipy.io.savemat(tmp_path / "p" / "walk" / "c.mat", {"pos_img": np.zeros((2, K, 1))})
    assert evaluate(tmp_path, tmp_path / "p.npz").metrics == expected
    outcome = evaluate(tmp_path, tmp_path / "p")
    assert outcome.metrics == expected
    assert outcome.counts["clips_not_in_split"] == 1


def test_what_the_user_gets_told(tmp_path):
    path = put_json(tmp_path / "p.json", {"a": row()})

    def refused(said, split="1"):
        with pytest.raises(BiposeError, match=said) as caught:
            evaluate(tmp_path, path, split)
        assert "\n" not in str(caught.value)

    refused("no folder splits")
    with pytest.raises(BiposeError, match=r"p\.json: is a file; give the folder that holds the folder splits"):
        evaluate(path, path)
    add_clip(tmp_path, "a", row(), (2, 1, None))
    refused("split 'dev' is none of 1, 2, 3, all", "dev")
    refused("no test clips with labels", "2")
    refused("choose another split number", "3")
    refused("no test clips with labels", "all")
    with (tmp_path / "splits" / "walk_test_split1.txt").open("a") as file:
        file.write("b.avi 2\n")
    outcome = evaluate(tmp_path, path)
    assert outcome.counts["clips_without_labels"] == 1
    assert any("1 listed clips have no joint positions and were left out" in note for note in outcome.notes)
    add_clip(tmp_path, "b", row(2), (None,) * 3)
    refused("no predictions for 1 of 2 clips, the first is walk/b")


@pytest.mark.real_data
def test_the_real_clips_by_loop_and_by_command(real_data, tmp_path, capsys):
    root = real_data / "jhmdb_mini"
    rng = np.random.default_rng(0)
    predictions, labels = {}, {}
    for path in sorted((root / "joint_positions").glob("*/*/joint_positions.mat")):
        name = path.parent.relative_to(root / "joint_positions").as_posix()
        labels[name] = scipy.io.loadmat(path)["pos_img"].astype(float).transpose(2, 1, 0)
        predictions[name] = labels[name] + rng.normal(0, 9, labels[name].shape)
    assert (len(labels), sum(map(len, labels.values()))) == (26, 774)
    np.savez(tmp_path / "p.npz", **predictions)
    expected, frames, tested_names = [], 0, set()
    for number in (1, 2, 3):
        tested = []
        for path in sorted((root / "splits").glob(f"*_test_split{number}.txt")):
            action = path.name.split("_test_split")[0]
            for line in path.read_text().split("\n"):
                if line.strip().endswith(".avi 2"):
                    name = f"{action}/{line.strip()[:-6]}"
                    tested.append((predictions[name], labels[name], None))
                    tested_names.add(name)
                    frames += len(labels[name])
        expected.append(plain(tested))
    outcome = command("jhmdb", root, tmp_path / "p.npz", split="all")
    assert outcome.counts["frames"] == frames
    assert outcome.about == {"split": "all", "lists": "splits", "person size": "box around the joints"}
    for name in expected[0]:
        assert outcome.metrics[name] == pytest.approx(np.mean([e[name] for e in expected]), abs=1e-12), name
    for number in (1, 2, 3):
        value = expected[number - 1]["pck@0.2[bbox]"]
        assert outcome.metrics[f"pck@0.2[bbox]/split{number}"] == pytest.approx(value, abs=1e-12)
        assert 0.5 < value < 1
    assert outcome.counts["clips_not_in_split"] == 26 - len({n for n in labels if n in tested_names})
    assert "split3" in capsys.readouterr().out
