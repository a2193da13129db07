"""The queue survives what happens to files."""

import pytest

pytest.importorskip("optuna")

from bipose_lit.ablation.queue import Queue


def test_put_take_tell(tmp_path):
    url = str(tmp_path / "q.journal")
    with Queue(url, "m") as queue:
        queue.put("a/seed0", arm="a")
        queue.put("b/seed0", arm="b")
        queue.put("c/seed0", arm="c")
        assert queue.take(["x"], "me") is None
        assert queue.take(["b/seed0", "a/seed0"], "me").key == "b/seed0"
        queue.tell(1, 0.5, seconds=3.0)
        queue.tell(1, None)  # what has ended stays
        assert queue.take(["a/seed0"], "you").number == 0
        queue.tell(0, None, reaped=True)
        queue.tell(2, None)  # never taken
    with Queue(url, "m") as queue:
        found = [(e.key, e.state, e.owner, e.reaped) for e in queue.entries()]
    assert found == [
        ("a/seed0", "failed", "you", True),
        ("b/seed0", "done", "me", False),
        ("c/seed0", "failed", "", False),
    ]


def test_two_folders_in_one_storage_do_not_meet(tmp_path):
    url = str(tmp_path / "q.journal")
    with Queue(url, "m", "here") as here, Queue(url, "m", "there") as there:
        here.put("a")
        there.put("a")
        assert here.take(["a"], "me").number == 0
        assert there.take(["a"], "you").number == 1, "an attempt was taken from another folder"
        here.tell(0, None)
        assert [e.state for e in there.entries()] == ["running"], "a failure elsewhere counts here"
        there.tell(1, 0.5)
        assert [(e.number, e.state) for e in here.entries()] == [(0, "failed")]
    with Queue(url, "m") as both:
        assert [e.state for e in both.entries()] == ["failed", "done"]


def test_nan_is_a_failed_trial(tmp_path):
    with Queue(str(tmp_path / "q.journal"), "m") as queue:
        queue.put("a")
        queue.take(["a"], "me")
        queue.tell(0, float("nan"))
        assert queue.entries()[0].state == "failed"


def test_torn_last_line_is_cut_off(tmp_path):
    path = tmp_path / "q.journal"
    with Queue(str(path), "m") as queue:
        queue.put("a")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 4, "worker_i')
    with Queue(str(path), "m") as queue:
        queue.put("b")
        assert [e.key for e in queue.entries()] == ["a", "b"]
    assert path.read_bytes().startswith(whole)


def test_tuning_trials_are_shown_once(tmp_path):
    space = {
        "lr": {"low": 0.1, "high": 1.0, "log": True},
        "kind": ["x", "y"],
        "depth": {"low": 1, "high": 3, "int": True},
    }
    with Queue(str(tmp_path / "q.journal"), "m") as queue:
        for _ in range(2):
            queue.record("lstm", 0, {"lr": 0.5, "kind": "y", "depth": 2}, space, 0.7, True)
        import optuna

        study = optuna.load_study(study_name="m/tune/lstm", storage=queue.storage)
        assert [(t.params, t.value) for t in study.trials] == [({"lr": 0.5, "kind": "y", "depth": 2}, 0.7)]
