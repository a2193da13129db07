"""What counts as usual is what readers really say."""

from pathlib import Path

import pytest

import bipose_lit.datasets
from bipose_lit.datasets.catalogue import CATALOGUE
from bipose_lit.datasets.coco_json import AREA_OF_BOX
from bipose_lit.datasets.usual import TOLD_OF_FILES, USUAL, is_usual

FOLDER = Path(bipose_lit.datasets.__file__).parent
SOURCE = "\n".join(p.read_text(encoding="utf-8") for p in FOLDER.glob("*.py") if p.name != "usual.py")


def test_each_reader_has_its_reasons():
    assert set(USUAL) == {data.reader.rpartition(".")[2] for data in CATALOGUE.values()}


@pytest.mark.parametrize("reason", sorted(frozenset().union(*USUAL.values()) | TOLD_OF_FILES))
def test_each_reason_is_one_that_readers_tell(reason):
    pieces = SOURCE.replace("{AREA_OF_BOX}", str(AREA_OF_BOX)).replace("{_LIST}", "published validation list")
    written = reason.removeprefix("annotations: ")  # which the file's reader puts before it
    end = f"{written[:-1]}{{" if written.endswith("*") else f'{written}"'
    assert end in pieces, f"no reader says {reason!r} any more: has its wording changed?"


def test_a_fault_of_one_format_may_be_usual_in_another():
    class COCO: ...

    class VideoJSON: ...

    reason = "annotations: no bbox, the labelled joints' box used"
    assert is_usual(VideoJSON(), reason)
    assert not is_usual(COCO(), reason)
    assert not is_usual(object(), "crowds")
    assert is_usual(VideoJSON(), "neighbouring labels are 4 apart, step is 1: give step 4")
    assert not is_usual(COCO(), "neighbouring labels are 4 apart, step is 1: give step 4")
