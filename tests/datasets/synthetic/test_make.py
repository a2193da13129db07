"""Making a set: the same bytes however it is made, resumption, refusals, the seal."""

import csv
import errno
import json
from collections import Counter
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest

from bipose_lit.datasets.jhmdb import JHMDB
from bipose_lit.datasets.synthetic import make, worker
from bipose_lit.datasets.synthetic.finish import RECORDS, record_path
from bipose_lit.datasets.synthetic.make import make_dataset
from bipose_lit.datasets.synthetic.motions import parts_of
from bipose_lit.types import OCCLUDED, BiposeError

OPTIONS = {"frames": 12, "size": (96, 72), "seed": 5, "progress": False}
CLIPS = {"stage1": 2, "train": 4, "val": 2, "test": 2}


def contents(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small set in all formats, made by two processes."""
    root = tmp_path_factory.mktemp("made") / "set"
    manifest = make_dataset(root, CLIPS, workers=2, formats=make.FORMATS, **OPTIONS)
    return root, manifest


def test_one_process_writes_the_same_bytes_as_two(made, tmp_path):
    root, manifest = made
    again = make_dataset(tmp_path / "set", CLIPS, workers=1, formats=make.FORMATS, **OPTIONS)
    assert again == manifest
    assert contents(tmp_path / "set") == contents(root)


def test_another_seed_gives_another_set(made, tmp_path):
    other = make_dataset(tmp_path / "set", {"val": 2}, workers=1, **{**OPTIONS, "seed": 6})
    part = make_dataset(tmp_path / "same", {"val": 2}, workers=1, **OPTIONS)
    assert other["fingerprint"] != part["fingerprint"]
    rows = {row["clip"]: row["digest"] for row in csv.DictReader((made[0] / "clips.csv").open())}
    for row in csv.DictReader((tmp_path / "same" / "clips.csv").open()):
        assert rows[row["clip"]] == row["digest"], "a clip does not depend on what else is in the set"


def test_the_reader_finds_every_split(made):
    root, _ = made
    index = {split: JHMDB(root).index(split) for split in ("train", "val", "test")}
    assert {split: len(i.tracks) for split, i in index.items()} == {"train": 4, "val": 2, "test": 2}
    assert index["train"].name == "synthetic/split1/train[clip-box]"
    assert len(JHMDB(root, split=2).index("train").tracks) == 2
    assert len(JHMDB(root, split=3).index("train").tracks) == 6
    everything = [*index.values(), JHMDB(root, split=2).index("train")]
    clusters = [c for i in everything for c in i.clusters]
    assert len(set(clusters)) == len(clusters), "splits share no source"
    assert not any(i.skipped for i in everything)
    uids = np.concatenate([t.uid for i in everything for t in i.tracks])
    assert len(np.unique(uids)) == len(uids)
    for i in everything:
        for track in i.tracks:
            assert len(track) == 12
            assert track.fps == 25.0


def test_statistics_are_those_of_the_written_labels(made):
    root, manifest = made
    tracks = JHMDB(root).index("train").tracks
    hidden = np.concatenate([(t.visible == OCCLUDED).ravel() for t in tracks])
    assert manifest["statistics"]["train"]["all"]["hidden"] == pytest.approx(hidden.mean(), abs=1e-4)
    assert manifest["statistics"]["train"]["all"]["clips"] == 4


def test_the_table_of_clips(made):
    root, _ = made
    rows = list(csv.DictReader((root / "clips.csv").open()))
    assert Counter(row["split"] for row in rows) == Counter(CLIPS)
    for row in rows:
        parts_of(row["kind"])
        assert (row["occluders"] == "") <= (row["regime"] == "N")
        assert float(row["read_noise"]) >= 0
    looks = {row["cluster"]: set() for row in rows}
    for row in rows:
        looks[row["cluster"]].add(row["look_id"])
    assert all(len(found) == 1 for found in looks.values()), "a source is one person"
    assert len(set().union(*looks.values())) == len(looks), "and each source another"


def test_nothing_in_the_set_names_this_machine(made, tmp_path_factory):
    root, manifest = made
    assert str(root.parent) not in json.dumps(manifest) + (root / "clips.csv").read_text()


def test_a_second_call_returns_at_once(made, monkeypatch):
    root, manifest = made
    monkeypatch.setattr(make, "_render_all", lambda *_: pytest.fail("rendered again"))
    assert make_dataset(root, CLIPS, formats=make.FORMATS, **OPTIONS) == manifest


@pytest.mark.parametrize(("change", "named"), [({"seed": 6}, "seed=5"), ({"frames": 13}, "frames=12")])
def test_other_parameters_on_an_existing_set_are_refused(made, change, named):
    with pytest.raises(BiposeError, match=named):
        make_dataset(made[0], CLIPS, formats=make.FORMATS, **{**OPTIONS, **change})


def test_an_interrupted_set_is_taken_up(made, tmp_path, monkeypatch):
    root, manifest = made
    target = tmp_path / "set"

    def stop_after_three(missing, total, options, workers, progress):
        for number, plan in missing[:3]:
            worker.make_clips([(number, plan)], options)
        raise KeyboardInterrupt

    monkeypatch.setattr(make, "_render_all", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        make_dataset(target, CLIPS, formats=make.FORMATS, **OPTIONS)
    assert not target.exists(), "nothing half-made bears the name"
    part = tmp_path / "set.part"
    assert len(list((part / RECORDS).rglob("*.npz"))) == 3
    rendered = []

    def here(missing, total, options, workers, progress):
        rendered.extend(plan.name for _, plan in missing)
        worker.make_clips(missing, options)

    monkeypatch.setattr(make, "_render_all", here)
    with pytest.raises(BiposeError, match="seed=5"):
        make_dataset(target, CLIPS, formats=make.FORMATS, **{**OPTIONS, "seed": 8})
    again = make_dataset(target, CLIPS, formats=make.FORMATS, **OPTIONS)
    assert len(rendered) == sum(CLIPS.values()) - 3
    assert again["fingerprint"] == manifest["fingerprint"]
    assert {n: d for n, d in contents(target).items() if not n.endswith(".avi")} == {
        n: d for n, d in contents(root).items() if not n.endswith(".avi")
    }
    assert not part.exists()


def test_a_clip_without_its_record_is_made_again(tmp_path, monkeypatch):
    def half(missing, total, options, workers, progress):
        monkeypatch.setattr(worker, "put", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        worker.make_clips(missing, options)

    monkeypatch.setattr(make, "_render_all", half)
    with pytest.raises(BiposeError, match="disk is full") as caught:
        make_dataset(tmp_path / "set", {"val": 2}, **OPTIONS)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()
    assert not list((tmp_path / "set.part" / RECORDS).rglob("scene*.json"))
    monkeypatch.undo()
    assert make_dataset(tmp_path / "set", {"val": 2}, workers=1, **OPTIONS)["statistics"]["val"]["all"]["clips"] == 2


def test_a_disk_that_is_too_small_is_told_before_the_work(tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr(make.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(BiposeError, match="GB free"):
        make_dataset(tmp_path / "set", {"val": 2}, **OPTIONS)


def test_a_failing_worker_stops_everything_with_its_message(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "_render_all", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make_dataset(tmp_path / "set", {"train": 4}, workers=2, **OPTIONS)
    monkeypatch.undo()
    (tmp_path / "set.part" / "joint_positions").write_text("in the way")
    with pytest.raises(BiposeError, match=r"set\.part: clip .*: cannot write"):
        make_dataset(tmp_path / "set", {"train": 4}, workers=2, **OPTIONS)
    assert not (tmp_path / "set").exists()


def test_clips_that_are_too_short_are_refused_before_anything_is_written(tmp_path):
    for frames in (1, 4, 11):
        with pytest.raises(BiposeError, match=f"clips of {frames} frames are too short for the assay; use at least 12"):
            make_dataset(tmp_path / "set", {"train": 4}, **{**OPTIONS, "frames": frames})
    with pytest.raises(BiposeError, match="clips of 12 frames are too short for the assay; use at least 13"):
        make_dataset(tmp_path / "set", {"train": 6}, **OPTIONS)  # the sixth is of regime B
    assert list(tmp_path.iterdir()) == []


def test_a_killed_worker_is_told_in_one_line(tmp_path, monkeypatch):
    class Pool:
        def __init__(self, *_, **__):
            pass

        def submit(self, *_):
            future = Future()
            future.set_exception(BrokenProcessPool("gone"))
            return future

        def shutdown(self, **_):
            pass

    monkeypatch.setattr(make, "ProcessPoolExecutor", Pool)
    with pytest.raises(BiposeError, match="fewer workers"):
        make_dataset(tmp_path / "set", {"val": 2}, **OPTIONS)


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("mine")
    with pytest.raises(BiposeError, match="did not write"):
        make_dataset(tmp_path / "set", {"val": 2}, **OPTIONS)
    assert (tmp_path / "set" / "thesis.txt").read_text() == "mine"
    (tmp_path / "other.part").mkdir()
    (tmp_path / "other.part" / "x").write_text("mine")
    with pytest.raises(BiposeError, match="did not write"):
        make_dataset(tmp_path / "other", {"val": 2}, **OPTIONS)
    (tmp_path / "file").write_text("")
    with pytest.raises(BiposeError, match="is a file"):
        make_dataset(tmp_path / "file", {"val": 2}, **OPTIONS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"clips": {"dev": 1}},
        {"clips": {}},
        {"formats": ("yolo",)},
        {"pixels": "gif"},
        {"workers": 0},
        {"size": (97, 72)},
    ],
)
def test_bad_arguments_are_one_line(tmp_path, wrong):
    arguments = {"clips": {"val": 2}, **OPTIONS, **wrong}
    with pytest.raises(BiposeError) as caught:
        make_dataset(tmp_path / "set", **arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()


@pytest.mark.real_data
def test_captured_motion_is_held_out_by_file(real_data, tmp_path):
    files = sorted((real_data / "mocap" / "cmu").glob("*.bvh"))[:4]
    make_dataset(tmp_path / "set", {"train": 4, "test": 4}, workers=1, motion_files=files, **{**OPTIONS, "seed": 1})
    rows = list(csv.DictReader((tmp_path / "set" / "clips.csv").open()))
    used = {split: {r["source"] for r in rows if r["split"] == split and r["source"]} for split in ("train", "test")}
    assert all(used.values())
    assert not used["train"] & used["test"]
    with pytest.raises(BiposeError, match="1 motion files for 2 splits"):
        make_dataset(tmp_path / "few", {"train": 4, "test": 4}, motion_files=files[:1], **OPTIONS)


def test_records_are_named_by_clip(tmp_path):
    assert record_path(tmp_path, "walk/scene1_0").relative_to(tmp_path).as_posix() == f"{RECORDS}/walk/scene1_0.json"
