"""A grid of sixty points searched by workers that are killed at random: each point once, none lost, and the best one found."""

import postgres
import pytest
from killing import disturb
from searches import GRID

SHORT = GRID.replace("[4, 8, 16, 32, 64]", "[4]")
"""Sixty points, and twelve."""


@pytest.fixture(scope="module")
def server():
    if reason := postgres.why_not():
        pytest.skip(reason)
    with postgres.server() as running:
        yield running


def check(site, storage: str, workers: int, kills: int, seconds: float, grid: str, points: int) -> None:
    site.write(grid)
    told = disturb(site, lambda: site.start(seconds=seconds, workers=1, storage=storage), points, workers, kills)
    assert told["kills"] >= kills, told
    ends = site.events("end")
    assert len(ends) == len(set(ends)), f"published twice: {sorted(ends)}"
    assert site.run(storage=storage).returncode == 0
    assert len(site.events("end")) == points, "a finished trial was run again"
    trials = site.trials()
    assert [t["state"] for t in trials] == ["finished"] * points
    assert len({str(sorted(t["params"].items())) for t in trials}) == points, "a point was lost, another tried twice"
    (site.folder / "events.log").rename(site.folder / "disturbed.log")
    assert site.run(seconds=0.01, out="straight", workers=2).returncode == 0

    def values(found: list) -> dict[str, float]:
        return {str(sorted(t["params"].items())): t["values"] for t in found}

    assert values(trials) == values(site.trials("straight"))
    assert max(t["values"][0] for t in trials) == max(t["values"][0] for t in site.trials("straight"))
    print(f"\n{workers} workers, {points} trials: {told}")


@pytest.mark.ddp
def test_a_killed_search_on_the_journal(site):
    check(site, str(site.folder / "q.journal"), 2, 3, 0.8, SHORT, 12)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sixty_trials_on_the_journal_by_two_workers(site):
    check(site, str(site.folder / "q.journal"), 2, 12, 0.5, GRID, 60)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sixty_trials_on_postgresql_by_four_workers(site, server):
    check(site, server.url("search"), 4, 12, 0.5, GRID, 60)
