"""Workers killed with SIGKILL at random moments and replaced: every run ends, once, as if nobody had been killed."""

import postgres
import pytest
from killing import disturb


def experiment(runs: int) -> str:
    arms = "".join(f"  a{i:02d}: {{model: {{width: {i}}}}}\n" for i in range(runs))
    return f"question: Which width?\nbase: base.yaml\narms:\n{arms}baseline: a00\nseeds: 1\nmode: full\n"


def check(site, storage: str, runs: int, workers: int, kills: int, seconds: float) -> None:
    site.write(experiment(runs))
    told = disturb(site, lambda: site.start(seconds=seconds, workers=1, storage=storage), runs, workers, kills)
    assert told["kills"] >= kills, told
    ends = site.events("end")
    assert len(ends) == len(set(ends)), f"published twice: {sorted(ends)}"
    results = site.results()
    assert len(results) == runs, "a run was lost"
    assert {r["status"] for r in results.values()} == {"finished"}
    (site.folder / "events.log").rename(site.folder / "disturbed.log")
    undisturbed = site.run(seconds=0.01, out="straight", workers=2)
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert results == site.results("straight")
    again = site.run(storage=storage)
    assert again.returncode == 0, again.stderr
    assert len(site.events("end")) == runs, "a finished run was repeated"

    def best(found: dict) -> float:
        return max(r["metrics"]["test/pck@0.1[clip,clip-box]"] for r in found.values())

    assert best(results) == best(site.results("straight"))
    print(f"\n{workers} workers, {runs} runs: {told}")


@pytest.fixture(scope="module")
def server():
    if reason := postgres.why_not():
        pytest.skip(reason)
    with postgres.server() as running:
        yield running


@pytest.mark.slow
def test_killed_workers_on_the_journal(site):
    check(site, str(site.folder / "q.journal"), runs=12, workers=2, kills=3, seconds=0.6)


@pytest.mark.ddp
def test_killed_workers_on_postgresql(site, server):
    check(site, server.url("short"), runs=12, workers=3, kills=3, seconds=0.6)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sixty_runs_and_twelve_kills_on_the_journal(site):
    check(site, str(site.folder / "q.journal"), runs=60, workers=2, kills=12, seconds=0.5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sixty_runs_and_twelve_kills_on_postgresql(site, server):
    check(site, server.url("whole"), runs=60, workers=4, kills=12, seconds=0.5)
