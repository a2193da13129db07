"""Figures: deterministic, free of fixed colours, readable without sight, and true to their numbers."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from bipose_lit.report import figures
from bipose_lit.report.figures import Line, Panel, Spot
from bipose_lit.report.forest import ForestRow, forest_table


def lines() -> list[Line]:
    x = np.arange(5.0)
    return [Line("a", x, x**2, x**2 - 1, x**2 + 1, 0), Line("b", x, x, style=None), Line("c<&", x, x + 1, style=2)]


def draw(slug: str = "one") -> dict[str, str]:
    delta = np.random.default_rng(0).normal(0.5, 1, (5, 12))
    delta[0, 0] = np.nan
    spots = [Spot("a", 1, 90, 88, 92, "causal", 0), Spot("b", 1.01, 90.1, style=1), Spot("c", 3, 80, note="x")]
    return {
        "curves": figures.curves(
            slug, "t<", "d&", [Panel(lines(), "x", ["0", "1", "2", "3", "never"], apart=True), Panel(lines(), "z")], "y"
        ),
        "cluster": figures.by_cluster(slug, "t", "d", delta, 0.5, "points"),
        "scatter": figures.scatter(slug, "t", "d", spots, "ms", "score"),
        "bars": figures.bars(slug, "t", "d", ["p", "q"], {"a": [1, 2], "b": [2, 3]}, {"a": 0, "b": None}, "score"),
    }


@pytest.mark.parametrize("name", ["curves", "cluster", "scatter", "bars"])
def test_svg(name: str) -> None:
    svg, other = draw()[name], draw("two")[name]
    assert svg == draw()[name]
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    space = "{http://www.w3.org/2000/svg}"
    assert root.find(f"{space}title").text
    assert root.find(f"{space}desc").text
    ids = [set(re.findall(r'\bid="([^"]+)"', s)) for s in (svg, other)]
    assert not ids[0] & ids[1]
    used = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
    assert used <= ids[0]
    assert set(re.findall(r"#[0-9a-fA-F]{6}\b", svg)) == set()
    assert "<text" in svg
    assert "date" not in svg.lower()


def test_colours_are_the_pages() -> None:
    assert "var(--c0)" in draw()["curves"]
    assert "var(--ink)" in draw()["curves"]


def test_forest_is_true_to_its_numbers() -> None:
    rows = [ForestRow("a − b", 2.0, 1.0, 3.0, "better"), ForestRow("c − b", -1.0, named=False, note="<script>")]
    page = forest_table(rows, 0.5, "points")
    x = [float(v) for v in re.findall(r'cx="([\d.]+)%"', page)]
    band = re.search(r'<rect x="([\d.]+)%" y="0" width="([\d.]+)%"', page)
    zero = float(re.search(r'x1="([\d.]+)%" x2="[\d.]+%" y1="0"', page)[1])
    low, high = map(float, re.search(r'x1="([\d.]+)%" x2="([\d.]+)%" y1="50%"', page).groups())
    unit = (x[0] - zero) / 2
    assert x[1] == pytest.approx(zero - unit, abs=0.02)
    assert (low, high) == (pytest.approx(zero + unit, abs=0.02), pytest.approx(zero + 3 * unit, abs=0.02))
    assert float(band[1]) == pytest.approx(zero - unit / 2, abs=0.02)
    assert float(band[2]) == pytest.approx(unit, abs=0.02)
    assert page.count('class="ci"') == 1
    assert "<script>" not in page
    assert 'aria-label="a − b: +2.00 [+1.00, +3.00] points better"' in page


def test_names_of_close_spots_do_not_overlap() -> None:
    spots = [Spot(f"arm{i}", 4 + 0.01 * i, 90 + 0.01 * i, style=i) for i in range(4)]
    svg = figures.scatter("s", "t", "d", [*spots, Spot("far", 9, 50)], "x", "y")
    found = re.findall(r'<text style="([^"]*)" x="([\d.]+)" y="([\d.]+)"[^>]*>arm\d<', svg)
    assert len(found) == 4
    starts = np.array([float(x) - (18 if "end" in style else 0) for style, x, _ in found])
    heights = np.array([float(y) for *_, y in found])
    apart = (np.abs(starts[:, None] - starts) > 18) | (np.abs(heights[:, None] - heights) > 7)
    assert apart[~np.eye(4, dtype=bool)].all()
