"""The data cards agree with the code, and can be made again."""

import re
from pathlib import Path

import pytest

from bipose_lit.datasets import cards
from bipose_lit.datasets.catalogue import CATALOGUE, find
from bipose_lit.datasets.layouts import tree
from bipose_lit.types import BiposeError

DATA = Path(__file__).parents[2] / "data"


def test_cards_are_up_to_date():
    assert cards.stale(DATA) == [], "run python -m bipose_lit.datasets.cards"


@pytest.mark.parametrize("data", CATALOGUE.values(), ids=CATALOGUE)
def test_each_set_has_a_card_with_its_tree_and_facts(data):
    text = (DATA / f"{data.card}.md").read_text(encoding="utf-8")
    assert f"<!-- tree {data.name} -->\n```\n{tree(data.layout(), data.folder)}\n```\n<!-- end -->" in text
    if data.name != "video_json":
        assert f"<!-- facts {data.name} -->\n{cards.facts(data)}\n<!-- end -->" in text
    assert "## Run here" in text
    assert re.search(rf"data check {data.name} ", text)
    assert f"({data.card}.md)" in (DATA / "README.md").read_text(encoding="utf-8")


def test_fetch_commands_of_the_cards_name_files_that_there_are():
    found = []
    for path in sorted(DATA.glob("*.md")):
        for name, only in re.findall(
            r"^    bipose data fetch (\w+)(?: --only (\S+))?", path.read_text(encoding="utf-8"), re.MULTILINE
        ):
            known = {item.file for item in find(name).downloads}
            assert known, f"{path.name}: {name} cannot be fetched"
            assert not only or set(only.split(",")) <= known, f"{path.name}: {only}"
            found.append((name, only))
    assert ("coco", "val2017.zip,annotations_trainval2017.zip") in found
    assert len(found) >= 8


def test_the_sequences_are_fetched_with_all_that_their_check_needs():
    text = (DATA / "mpii.md").read_text(encoding="utf-8")
    files = re.search(r"data fetch mpii_sequences --only (\S+)", text)[1].split(",")
    needed = ("batch1.tar.gz", "keyframes.mat", "mpii_human_pose_v1_u12_2.zip")
    assert all(any(file.endswith(part) for file in files) for part in needed)


def test_facts_tell_counts_checksums_and_defects():
    text = cards.facts(find("coco"))
    assert "train+val: 149,813 persons, 56,599 pictures" in text
    assert "| 19.3 GB | `md5:cced6f7f71b7629ddf16f17bbcfab6b2` |" in text
    assert "(25 files)" in cards.facts(find("mpii_sequences"))
    assert "- clips 1154 and 1865" in cards.facts(find("penn"))


def test_rewriting_changes_what_is_stale_alone(tmp_path):
    (tmp_path / "a.md").write_text("before\n<!-- tree penn -->\nold\n<!-- end -->\nafter\n")
    (tmp_path / "b.md").write_text("<!-- tree penn -->\n" + cards.fenced_tree(find("penn")) + "\n<!-- end -->\n")
    (tmp_path / "c.md").write_text("no block <!-- sets\n")
    assert cards.rewrite(tmp_path) == ["a.md"]
    text = (tmp_path / "a.md").read_text()
    assert text.startswith("before\n<!-- tree penn -->\n```\ndata/penn_action/\n")
    assert text.endswith("```\n<!-- end -->\nafter\n")
    assert cards.rewrite(tmp_path) == []


def test_an_unknown_set_in_a_card(tmp_path, monkeypatch):
    (tmp_path / "a.md").write_text("<!-- facts cocos -->\n<!-- end -->\n")
    with pytest.raises(BiposeError, match="did you mean coco"):
        cards.rewrite(tmp_path)
    monkeypatch.setattr("sys.argv", ["cards", str(tmp_path)])
    with pytest.raises(SystemExit, match="did you mean coco"):
        cards.main()
    monkeypatch.setattr("sys.argv", ["cards", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match="no such folder"):
        cards.main()
