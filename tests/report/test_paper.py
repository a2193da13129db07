"""`bipose report paper`: every claim has a verdict that follows from the file's numbers, and runs fill the measured column."""

import dataclasses
import io

import msgspec
import pytest
import yaml
from rich.console import Console

from bipose_lit.__main__ import main
from bipose_lit.ablation.manifest import load_manifest
from bipose_lit.report.paper import FILE, SAID, Claims, load_claims, measured, rows, show, to_markdown, verdict
from bipose_lit.store import RunResult
from bipose_lit.types import BiposeError


def made(value, *, r50=None, best=None, recall=None, undefined=""):
    """Claims with one number under one definition, beside a recall."""
    published = {
        name: {"value": v, "by": name, "how": "", "source": "s", "read": True}
        for name, v in (("r50", r50), ("best", best))
        if v is not None
    }
    definition = {"definition": "d", **{k: k for k in published}}
    numbers = [{"claim": "AP", "where": "", "value": value, "undefined": undefined, "could_be": [definition]}]
    if recall is not None:
        definition["at_most"] = "recall"
        numbers.append({"claim": "recall", "where": "", "value": recall})
    plain = {"paper": "", "published": published, "sources": {"s": ""}, "numbers": numbers, "statements": []}
    claims = msgspec.convert(plain, Claims)
    return claims.numbers[0], claims.numbers[0].could_be[0], claims


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        ({"value": 0.89, "r50": 0.70, "best": 0.81}, "above every value in the sources (best 81.0)"),
        ({"value": 0.89, "r50": 0.886, "best": 0.90}, "what a ResNet-50 has frame by frame"),
        ({"value": 0.60, "r50": 0.70, "best": 0.81}, "below a ResNet-50 frame by frame, by 10.0 points"),
        ({"value": 0.75, "r50": 0.70, "best": 0.81}, "5.0 points above a ResNet-50 frame by frame"),
        ({"value": 0.75, "r50": 0.70, "undefined": "no such measure"}, "frame; no such measure"),
    ],
)
def test_verdicts_follow_from_the_numbers(claim, told):
    assert told in verdict(*made(**claim))


def test_an_average_precision_above_the_recall_is_told():
    assert "exceeds the table's recall by 8 points" in verdict(*made(0.89, recall=0.81))
    assert "exceeds" not in verdict(*made(0.815, recall=0.81))  # 1/101 is allowed


def test_the_file_holds_every_number_of_the_papers_tables():
    """Tables 1 and 2 of the paper, typed from it once more."""
    claims = load_claims()
    printed = {
        **{("COCO", k): v for k, v in {"recall": 0.81, "precision": 0.87, "AP": 0.89, "mAP": 0.92, "MPJPE": 16.5}.items()},
        **{("MPII", k): v for k, v in {"recall": 0.85, "precision": 0.89, "AP": 0.91, "mAP": 0.94, "MPJPE": 15.2}.items()},
    }  # fmt: skip
    assert {tuple(n.claim.split()): n.value for n in claims.numbers} == printed
    assert all(n.could_be or n.undefined for n in claims.numbers)
    text = to_markdown(claims)
    assert text.count("\n| COCO AP |") == 2
    bounded = [line for line in text.splitlines() if "that recall is no AR" in line]
    assert len(bounded) == 2, "AP at one OKS may lie far above AR, which is a mean over ten"
    assert all("mean over OKS" in line for line in bounded)
    assert all(s.said in text for s in claims.statements)


def test_recipes_give_the_numbers_that_are_asked_of_them(pytestconfig):
    """A claim's recipe is a manifest of experiments/recipes, and names the number among its own."""
    folder = pytestconfig.rootpath / "experiments" / "recipes"
    asked = {(d.recipe, d.metric) for n in load_claims().numbers for d in n.could_be if d.recipe}
    assert asked
    for recipe, metric in sorted(asked):
        manifest = load_manifest(folder / f"{recipe}.yaml")
        names = {manifest.endpoint, *manifest.metrics, *(e.metric for e in manifest.expected)}
        assert metric.removeprefix("test/") in names


def test_finished_runs_fill_the_measured_column(tmp_path):
    result = RunResult(name="paper_coco", arm="a", seed=0, status="finished", metrics={"test/ap[det-box]": 0.5})
    for seed, value in ((0, 0.5), (1, 0.6)):
        result = dataclasses.replace(result, seed=seed, metrics={"test/ap[det-box]": value})
        result.publish(tmp_path / "paper_coco" / "a" / f"seed{seed}")
    failed = dataclasses.replace(result, seed=2, status="failed", metrics={"test/ap[det-box]": 0.9})
    failed.publish(tmp_path / "paper_coco" / "a" / "seed2")
    assert measured(tmp_path, "paper_coco", "test/ap[det-box]") == "55.0 (2 runs)"
    assert measured(tmp_path, "paper_mpii", "test/pckh@0.5[gt-box]") == "not run (paper_mpii)"
    assert measured(tmp_path, "paper_coco", "test/ap50[gt-box]") == "not in paper_coco's results"
    dataclasses.replace(result, seed=3, metrics={"test/ar[det-box]": float("nan")}).publish(
        tmp_path / "paper_coco" / "a" / "seed3"
    )
    assert measured(tmp_path, "paper_coco", "test/ar[det-box]") == "undefined (1 run)"
    assert next(r.measured for r in rows(load_claims(), tmp_path) if r.claim == "COCO AP") == "55.0 (2 runs)"


def test_a_broken_file_is_told(tmp_path):
    data = yaml.safe_load(FILE.read_text())
    data["numbers"][0]["could_be"][0]["best"] = "nobody"
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(BiposeError, match="nobody is not under published"):
        load_claims(tmp_path / "p.yaml")
    data["numbers"][0]["could_be"][0]["best"] = None
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(BiposeError, match="nothing cites vitpose_coco_ar under published"):
        load_claims(tmp_path / "p.yaml")
    (tmp_path / "p.yaml").write_text("paper: 3\n")
    with pytest.raises(BiposeError, match=r"p\.yaml: .*\$\.paper"):
        load_claims(tmp_path / "p.yaml")


@pytest.mark.parametrize("width", [80, 200])
def test_no_word_is_broken_in_a_narrow_window(width):
    out = io.StringIO()
    claims = load_claims()
    show(claims, console=Console(file=out, width=width))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    words = {w for line in text.splitlines() for w in line.split()}
    for row in rows(claims):
        assert set(row.claim.split()) | set(row.verdict.split()) <= words
    assert {w for s in claims.statements for w in s.said.split()} <= words


def test_the_command(tmp_path, capsys):
    assert main(["report", "paper", "--markdown", str(tmp_path / "paper.md")]) == 0
    assert "Bipose" in capsys.readouterr().out
    assert "| " + " | ".join(SAID) + " |" in (tmp_path / "paper.md").read_text()
    assert main(["report", "paper", "--runs", str(tmp_path / "none")]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--runs", str(tmp_path)]) == 1
    assert "go with 'bipose report paper' alone" in capsys.readouterr().err
