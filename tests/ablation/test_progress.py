"""Displays, without waiting."""

import io
import math
import threading

import pytest

from bipose_lit.ablation.progress import LiveProgress, PlainProgress, Progress, Running, clock, shown


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (75, "1:15"), (3723, "1:02:03"), (math.nan, "?")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_shown_is_short():
    metrics = {"train/loss": 1.0, "train/xy": 2.0, "val/loss": 3.0, "val/pck@0.1[clip]": 0.5, "val/other": 1.0}
    assert shown(metrics) == {"train/loss": 1.0, "val/pck@0.1[clip]": 0.5}
    assert shown({"loss": 2.0, "val/a": 1.0, "val/pck@0.1[clip,box]": 0.5}, "pck@0.1[clip]") == {
        "loss": 2.0,
        "val/pck@0.1[clip,box]": 0.5,
    }


def fill(display):
    display.phase("features")
    display.step(1, 4, "clips")
    display.start_runs(1, 4, 2, [10.0])
    display.taken(0, "none/seed0")
    display.run_step(0, 3, 10, {"train/loss": 0.5})
    display.taken(1, "lstm/seed0")
    display.ended(1, "lstm/seed0", "failed", math.nan, None, "broke; mend", "")


def test_estimate_and_lines():
    stream = io.StringIO()
    display = PlainProgress(stream, every=0.0)
    fill(display)
    assert display.eta() == pytest.approx(10.0, abs=0.1)  # two are left, one has just begun, on two workers
    display.tick()
    text = stream.getvalue()
    assert "lstm/seed0 failed: broke; mend" in text
    assert "1/4 runs finished, 1 failed, about 10.0 s left | none/seed0 3/10 loss 0.5" in text


def test_the_time_left_counts_running_ones_that_cost_more_than_finished_ones(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("bipose_lit.ablation.progress.time.monotonic", lambda: now[0])
    display = Progress(io.StringIO())
    display.start_runs(1, 4, 2, [10.0])  # one that took no training
    display.running = {slot: Running(f"run{slot}", started=now[0]) for slot in (0, 1)}
    for slot in (0, 1):
        display.run_step(slot, 0, 200, {})
    now[0] += 60.0
    for slot in (0, 1):
        display.run_step(slot, 60, 200, {})  # 200 s each
    mean = (10 + 200 + 200) / 3
    assert display.eta() == pytest.approx((140 + 140 + mean) / 2)


def test_a_run_that_goes_on_and_one_that_begins_another_seed_are_not_nearly_done(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("bipose_lit.ablation.progress.time.monotonic", lambda: now[0])
    display = Progress(io.StringIO())
    display.start_runs(0, 1, 1, [])
    display.running = {0: Running("run", started=now[0])}
    display.run_step(0, 800, 1000, {})  # from a checkpoint
    now[0] += 10.0
    assert math.isnan(display.eta())
    display.run_step(0, 900, 1000, {})
    assert display.eta() == pytest.approx(10.0)
    now[0] += 10.0
    display.run_step(0, 10, 1000, {})  # the trial's next seed
    assert math.isnan(display.eta())
    now[0] += 30.0
    display.run_step(0, 310, 1000, {})
    assert display.eta() == pytest.approx(69.0)


def test_live_display_starts_no_thread():
    before = threading.active_count()
    display = LiveProgress(io.StringIO())
    fill(display)
    assert threading.active_count() == before
    display.console.print(display.render())
    display.close()
    text = display.stream.getvalue()
    assert "none/seed0" in text
    assert "3/10" in text
