"""Expected beside measured; and the report of runs that a data set's own measure alone scores."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_html import check
from test_load import edit

from bipose_lit.report.build import Report, build_report
from bipose_lit.report.choose import build_any_report
from bipose_lit.report.expectations import lines, section, table
from bipose_lit.report.load import load_study
from bipose_lit.report.own import OwnReport, build_own_report, is_own, own_table
from bipose_lit.report.tables import DASH, to_markdown
from bipose_lit.types import BiposeError

AP = {"metric": "ap[det-box]", "value": 0.704, "band": 0.006, "source": "its <README>", "gpu_hours": None}
PCK = {**AP, "metric": "pck@0.1[clip,clip-box]", "value": 0.9, "arm": "lstm", "gpu_hours": 40}


def change(folder: Path, **fields) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def own(folder: Path) -> None:
    """Runs scored by COCO's measure: 0.69, 0.70 and 0.71 in the first arm, a tenth less in each next."""
    for a, arm in enumerate(("none_matched", "lstm", "bilstm")):
        for seed in range(3):
            edit(
                folder, arm, seed, metrics={"test/ap[det-box]": 0.69 + 0.01 * seed - 0.1 * a, "test/ar[det-box]": 0.75}
            )
    numbers = [{**AP, "arm": "none_matched"}, {**AP, "metric": "ar[det-box]", "arm": "lstm", "read": False}]
    change(folder, endpoint="ap[det-box]", metrics=["ar[det-box]"], expected=numbers, contrasts=[])


def test_the_table_says_what_was_expected_measured_and_what_it_costs(small) -> None:
    folder, _ = small
    change(folder, expected=[PCK, {**AP, "arm": "bilstm", "read": False}])
    found = table(load_study(folder))
    assert found is not None
    one, two = found.rows
    assert one.name == "lstm: pck@0.1[clip,clip-box]"
    assert [(c.main, c.small) for c in one.cells] == [
        ("0.9", "± 0.006"),
        ("0.9", "3 runs"),
        ("in the band", ""),
        ("40", ""),
    ]
    assert [c.main for c in two.cells] == ["0.704", DASH, "not measured", "unknown"]
    assert two.about == "its <README> (from a secondary note)"


def test_it_is_in_every_form_of_the_report(small) -> None:
    folder, _ = small
    change(folder, expected=PCK)
    report = build_report(folder)
    said = "Expected pck@0.1[clip,clip-box] 0.9 ± 0.006 (its <README>): measured 0.9 (3 runs), in the band."
    assert lines(report.analysis.study) == [said]
    text = report.markdown.read_text()
    assert f"- {said}\n" in text
    assert "in the band" in text.split("### expected")[1]
    page = report.page.read_text()
    assert "expected" in check(page).ids
    assert "its &lt;README&gt;" in page


def test_nothing_expected_adds_nothing(small) -> None:
    folder, _ = small
    study = load_study(folder)
    assert table(study) is None
    assert lines(study) == []
    assert section(study).body == ""
    report = build_report(folder)
    assert "expected" not in check(report.page.read_text()).ids
    assert "### expected" not in report.markdown.read_text()


def test_a_mistaken_number_is_one_line(small) -> None:
    change(small[0], expected={**PCK, "value": "0.9"})
    with pytest.raises(BiposeError, match="value must be a number"):
        load_study(small[0])


@pytest.mark.parametrize(
    ("endpoint", "told"), [("pck@0.1[clip]", False), ("ap[det-box]", True), ("pckh@0.5[gt-box]", True), (None, False)]
)
def test_which_report_is_built(tmp_path: Path, endpoint, told) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"endpoint": endpoint}))
    assert is_own(tmp_path) is told
    assert is_own(tmp_path / "nowhere", {"endpoint": endpoint}) is told
    (tmp_path / "manifest.json").write_text("{")
    assert not is_own(tmp_path)


def test_a_sets_own_measure_has_a_report(small, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = small
    assert isinstance(build_any_report(folder), Report)
    own(folder)
    report = build_any_report(folder)
    assert isinstance(report, OwnReport)
    numbers, expected, cost = report.shown
    assert numbers.columns == ("ap[det-box]", "ar[det-box]")
    assert [(r.name, r.cells[0].main, r.cells[0].small) for r in numbers.rows] == [
        ("none_matched", "0.700", "0.690 to 0.710"),
        ("lstm", "0.600", "0.590 to 0.610"),
        ("bilstm", "0.500", "0.490 to 0.510"),
    ]
    assert [r.cells[2].main for r in expected.rows] == ["in the band", "above the band"]
    assert [r.name for r in cost.rows] == ["none_matched", "lstm", "bilstm"]
    page = report.page.read_text()
    assert set(check(page).ids) >= {"numbers", "expected", "cost"}
    assert "its &lt;README&gt;" in page
    text = report.markdown.read_text()
    assert "Expected ap[det-box] 0.704 ± 0.006 (its <README>): measured 0.7 (3 runs), in the band." in text
    assert to_markdown(numbers) in text
    assert "no verdict" in text
    rows = list(csv.DictReader(report.summary.open()))
    assert {r["seed"] for r in rows if r["arm"] == "lstm"} >= {"0", "1", "2"}
    report.show()
    assert "0.600" in capsys.readouterr().out


def test_equal_inputs_give_equal_files(small) -> None:
    own(small[0])
    first, second = (
        [p.read_bytes() for p in (r.page, r.markdown, r.summary)]
        for r in (build_own_report(small[0]), build_own_report(small[0]))
    )
    assert first == second


def test_missing_runs_and_numbers_are_told(small) -> None:
    folder, _ = small
    own(folder)
    edit(folder, "lstm", 1, status="failed", error="out of memory")
    text = build_own_report(folder).markdown.read_text()
    assert "1 run is missing: lstm/seed1: out of memory." in text
    assert "The test split was scored once per run." in text
    edit(folder, "lstm", 2, metrics={"test/ap[det-box]": 0.5})
    assert {r.cells[1].main for r in own_table(load_study(folder)).rows} == {"0.750"}
    edit(folder, "lstm", 0, metrics={"test/ap[det-box]": 0.5})
    assert [r.cells[1].main for r in own_table(load_study(folder)).rows] == ["0.750", DASH, "0.750"]
    change(folder, endpoint="ap50[det-box]")
    with pytest.raises(BiposeError) as caught:
        build_own_report(folder)
    assert (
        "endpoint 'ap50[det-box]' is not among the test results of none_matched/seed0; it has ap[det-box], ar[det-box]"
        in str(caught.value)
    )
    assert "\n" not in str(caught.value)


def test_the_command_needs_no_torch(small) -> None:
    own(small[0])
    code = (
        "import sys\nfrom bipose_lit.__main__ import main\n"
        f"code = main(['report', {str(small[0])!r}])\n"
        "print(code, sorted({'torch', 'lightning', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
