"""An ablation says what it should give before it runs, and where it landed when it ends."""

import pytest

METRIC = "pck@0.1[clip,clip-box]"


def expecting(site, value: float, metric: str = METRIC, hours: str = "null") -> None:
    number = f"{{metric: '{metric}', value: {value}, band: 0.001, source: its README, arm: lstm, gpu_hours: {hours}}}"
    site.write(site.text + f"expected:\n  - {number}\n")


def landing(done) -> str:
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("expected "))
    return line


@pytest.mark.parametrize(("hours", "told"), [("null", "unknown"), ("40", "40")])
def test_the_plan_says_what_is_expected_and_what_it_costs(site, hours, told):
    expecting(site, 0.8, hours=hours)
    done = site.run(plan_only=True)
    assert done.returncode == 0, done.stderr
    assert f"expected: {METRIC} 0.8 ± 0.001 (its README); GPU-hours: {told}" in done.stdout.splitlines()


def test_the_last_lines_say_where_the_runs_landed(site):
    """Numbers are no part of a run: changing them repeats nothing."""
    expecting(site, 5)
    assert landing(site.run()).endswith("(2 runs), below the band")
    values = [site.results()[f"lstm/seed{seed}"]["metrics"]["test/" + METRIC] for seed in (0, 1)]
    expecting(site, sum(values) / 2 + 0.0009)
    assert landing(site.run()).endswith("(2 runs), in the band")
    expecting(site, sum(values) / 2 - 0.0011)
    assert landing(site.run()).endswith("(2 runs), above the band")
    expecting(site, 0.8, "ap[det-box]")
    assert landing(site.run()) == "expected ap[det-box] 0.8 ± 0.001 (its README): not measured"
    assert len(site.events("start")) == 6
