"""The benchmarks run, measure what they say, and keep each other's results; no time is asserted."""

import importlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks/ is no part of the package

from benchmarks import CASES, results  # noqa: E402
from benchmarks.__main__ import main  # noqa: E402
from benchmarks.measure import Spread, hottest, interleave, number, profile, stages, table  # noqa: E402
from benchmarks.setting import Setting  # noqa: E402

TABLES = {
    "cache": ["reading the cache", "decoding, cropping, forwarding", "none", "bilstm", "pooled lstm, regression"],
    "pipeline": ["AVI", "JPEG", "PNG"],
    "synthetic": ["rendered and written"],
    "heads": ["none_matched", "lstm", "lstm_wide", "bilstm", "tcn"],
    "decode": ["quarter", "parabola", "dark"],
    "assembly": ["1", "5"],
    "structured": [
        "largest value",
        "MeanFieldCRF, trained for 3 steps",
        "HOG part filters, largest value",
        "32",
        "CRF, 3 rounds",
    ],
    "startup": ["`python -c pass`", "`bipose --help`", "`bipose ablate --help`", "`bipose report --help`"],
    "metrics": ["summarise", "without pictures", "with pictures"],
    "report": ["6 runs", "9 runs"],
    "engine": ["4 runs, journal", "8 runs, journal", "4 runs, SQLite", "1 workers", "2 workers"],
    "sweep": ["empty", "training a head"],
    "ddp": ["per frame", "bilstm"],
    "gpu": ["32-true", "bf16-mixed", "bf16-mixed, compiled"],
    "index": ["from JSON, the cache is written", "from the cache"],
    "coco_ap": ["bipose", "pycocotools", "faster-coco-eval", "suppression by OKS", "reading the results"],
}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """Cases fix threads and switch the video cache off, for their own process; here they share one."""
    from bipose_lit.datasets import frames

    threads = torch.get_num_threads()
    monkeypatch.setenv(frames.CACHE, "")
    yield
    torch.set_num_threads(threads)


def rows(text: str) -> dict[str, list[str]]:
    lines = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")
    ]
    return {line[0].strip(): line[1:] for line in lines}


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none")
LONG = ("cache", "pipeline", "metrics", "engine", "report", "sweep", "ddp", "structured")
"""Cases of half a minute even when tiny; `test_cached_features_are_those_that_pixels_give` runs a part of the first."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n in LONG) + [pytest.mark.gpu, GPU] * (n == "gpu"))
        for n in CASES
        if n != "startup"
    ],
)
def test_case_runs_tiny(name: str, work: Path) -> None:
    told: list[str] = []
    text = importlib.import_module(f"benchmarks.{name}").run(Setting(work, quick=True, tell=told.append))
    check(name, text)
    assert told


@pytest.mark.parametrize("case", ["index", pytest.param("startup", marks=pytest.mark.slow)])
def test_command_runs_cases_and_keeps_other_sections(tmp_path: Path, case: str) -> None:
    out = tmp_path / "RESULTS.md"
    out.write_text(results.compose({"cache": "## Feature cache\n\nkept", case: "## Something\n\nreplaced"}))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "benchmarks", case, "decode", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[1/2] decode: done" in done.stderr  # always in the file's order
    found = results.parse(out.read_text())
    assert list(found) == ["cache", "decode", case]
    assert found["cache"] == "## Feature cache\n\nkept"
    assert "replaced" not in found[case]
    for name in ("decode", case):
        check(name, found[name])
        assert "numbers mean nothing" in found[name]
        assert re.search(r"\*(commit [0-9a-f]{10} of \d{4}-\d\d-\d\d|no commit known)", found[name])
        assert "1 thread;" in found[name]
    if case == "startup":
        assert re.search(r"first optimiser step: [\d,.]+ ms", found[case])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_case_that_cannot_be_measured_here_leaves_its_section(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr("benchmarks.__main__.LOCK", tmp_path / "lock")
    out = tmp_path / "RESULTS.md"
    out.write_text(results.compose({"gpu": "## GPU\n\nkept"}))
    assert main(["gpu", "--quick", "--out", str(out)]) == 0
    assert "gpu: skipped: there is no CUDA device" in capfd.readouterr().err
    assert results.parse(out.read_text()) == {"gpu": "## GPU\n\nkept"}


def check(name: str, text: str) -> None:
    found = rows(text)
    missing = [row for row in TABLES[name] if row not in found]
    assert not missing, text
    assert "nan" not in text
    assert "inf" not in re.findall(r"\b\w+\b", text)
    assert "What limits" in text  # every section says so


def test_all_cases_are_checked() -> None:
    assert list(TABLES) == list(CASES)


def test_cached_features_are_those_that_pixels_give(work: Path) -> None:
    """What is compared must be the same work: the section tells the difference."""
    text = importlib.import_module("benchmarks.cache")
    setting = Setting(work, quick=True)
    said = text._reading(setting, setting.config("temporal/none.yaml"))
    error, peak = (float(x) for x in re.search(r"at most ([\d.]+) where the largest is ([\d.,]+)", said).groups())  # type: ignore[union-attr]
    assert 0 < error < 2e-3 * peak


def test_interleave_calls_jobs_in_turn() -> None:
    calls: list[str] = []
    found = interleave({name: (lambda n=name: calls.append(n)) for name in "abc"}, rounds=3)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"  # a warm-up, then rotated rounds
    assert {name: len(spread.values) for name, spread in found.items()} == {"a": 3, "b": 3, "c": 3}
    with pytest.raises(ValueError, match="at least one"):
        interleave({}, rounds=0)


def test_interleave_repeats_short_jobs() -> None:
    calls = []
    (spread,) = interleave({"short": lambda: calls.append(1)}, rounds=1, least=0.002).values()
    assert len(calls) > 20
    assert spread.median < 0.002  # per call


def test_ratios_are_taken_round_by_round() -> None:
    ratio = Spread((2.0, 8.0, 3.0)).over(Spread((1.0, 4.0, 1.0)))
    assert ratio.values == (2.0, 2.0, 3.0)
    assert str(ratio) == "2.00 (2.00..3.00)"
    assert str(Spread((0.5,)).ms) == "500"
    with pytest.raises(ValueError):
        Spread((1.0,)).over(Spread((1.0, 2.0)))


@given(st.floats(1e-6, 1e9))
def test_numbers_keep_three_digits(value: float) -> None:
    shown = number(value)
    assert "e" not in shown
    assert float(shown.replace(",", "")) == pytest.approx(value, rel=5.1e-3)


def test_numbers_read_well() -> None:
    assert [number(v) for v in (12345, 99.96, 9.996, 0.012345, 0)] == ["12,300", "100", "10.0", "0.0123", "0"]


def test_profile_finds_who_spends() -> None:
    def spend() -> int:
        return sum(i * i for i in range(200_000))

    def idle() -> int:
        return len("idle")

    def parent() -> None:
        idle()
        spend()

    stats = profile(parent)
    (first, *_) = stages(stats, [(Path(__file__).name, "parent")])
    assert "spend" in first.name
    assert 0.8 < first.share <= 1.0
    assert 0.99 < sum(s.share for s in hottest(stats, 100)) <= 1.001


@given(st.dictionaries(st.sampled_from(list(CASES)), st.text("ab #|\n.", min_size=1).map(str.strip).filter(bool)))
def test_results_survive_their_file(sections: dict[str, str]) -> None:
    text = results.compose(sections)
    assert results.parse(text) == sections
    assert results.compose(results.parse(text)) == text
    order = re.findall(r"<!-- case: (\w+) -->", text)
    assert order == [name for name in CASES if name in sections]


def test_committed_results_are_of_known_cases() -> None:
    path = ROOT / "benchmarks" / "RESULTS.md"
    if not path.exists():
        pytest.skip("nothing was measured yet")
    text = path.read_text()
    assert results.compose(results.parse(text)) == text
    assert "Quick run" not in text


def test_load_of_others_is_told() -> None:
    load = results.Load()
    assert load.others() is None, "a moment tells nothing"
    time.sleep(2 * results.COUNTED)
    others = load.others()
    assert others is None or 0 <= others <= (os.cpu_count() or 1) * 1.5
    assert "other work" in str(load)


def test_table() -> None:
    assert table(["a", "b"], [[1, Spread((1.0,))]]) == "| a | b |\n| --- | --- |\n| 1 | 1.00 |"


def test_unknown_case_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["caches"])
    assert stop.value.code == 2
    assert "no case 'caches'; it is one of: cache," in capsys.readouterr().err


def test_two_never_measure_at_once(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    from bipose_lit.ablation.process import Lock

    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "KINETO_LOG_LEVEL",
        "NO_ALBUMENTATIONS_UPDATE",
    ):
        monkeypatch.setenv(name, "1")  # restored afterwards
    monkeypatch.setattr("benchmarks.__main__.LOCK", tmp_path / "lock")
    with Lock(tmp_path / "lock"):
        assert main(["decode", "--quick"]) == 1
    assert "another one is measuring" in capsys.readouterr().err
