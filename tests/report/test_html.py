"""The page: well formed, nothing from elsewhere, usable without sight."""

import re
from html.parser import HTMLParser

from bipose_lit.report import html
from bipose_lit.report.html import Budget, Section

VOID = {"meta", "img", "br", "link", "input", "source"}


class Checker(HTMLParser):
    """Checks nesting and collects ids, anchors, addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.addresses: list[str] = []
        self.problems: list[str] = []
        self.headings: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(str(values["id"]))
        for key in ("src", "href", "poster", "data", "xlink:href"):
            address = str(values.get(key, ""))
            if address.startswith("#"):
                self.anchors.append(address[1:])
            elif address:
                self.addresses.append(address[:30])
        if tag == "img" and not values.get("alt"):
            self.problems.append("img without alt")
        if tag == "video" and not values.get("aria-label"):
            self.problems.append("video without label")
        if tag == "svg" and not {"aria-label", "aria-labelledby", "class"} & set(values):
            self.problems.append("svg without label")
        if tag in ("script", "iframe", "object", "link"):
            self.problems.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes something else")


def check(page: str) -> Checker:
    """Parses a page and asserts what must hold for every page."""
    checker = Checker()
    checker.feed(page)
    assert checker.problems == []
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids)), "an id is used twice"
    assert set(checker.anchors) <= set(checker.ids)
    assert [a for a in checker.addresses if not a.startswith("data:")] == []
    assert not re.search(r"url\((?!#)|@import", page)
    assert all(b - a <= 1 for a, b in zip(checker.headings, checker.headings[1:], strict=False)), (
        "a heading level is skipped"
    )
    return checker


def test_page() -> None:
    sections = [Section("a", "First <one>", "<p>x</p>", "lead"), Section("b", "Empty", "")]
    page = html.page("T & t", "<h1>T</h1>", sections, "end")
    checker = check(page)
    assert checker.anchors == ["a"]
    assert "First &lt;one&gt;" in page
    assert "default-src 'none'" in page
    assert "prefers-color-scheme:dark" in page
    assert 'name="viewport"' in page


def test_pieces_are_well_formed() -> None:
    uri = "data:image/png;base64,AAAA"
    body = html.grid([html.figure(html.image(uri, 'a "quoted" alt'), "c & d"), html.figure(html.video(uri, "v", uri))])
    body += html.table(["x", "y"], [["<b>1</b>", "2"], ["3", '<td class="words">4</td>']], ["split", ""], "a table")
    body += html.items(["a < b"]) + html.facts([("k", "v")])
    check(html.page("t", "<h1>t</h1>", [Section("s", "S", body)]))
    assert html.grid([]) == html.items([]) == ""


def test_budget() -> None:
    budget = Budget(10)
    assert budget.take("12345678")
    assert not budget.take("1234")
    assert budget.take("12")
    assert budget.refused == 1
