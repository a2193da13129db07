"""Parts from plain data, and the messages where that fails."""

from pathlib import PurePath, PurePosixPath

import pytest

from bipose_lit.models.base import Part
from bipose_lit.models.rebuild import instantiate
from bipose_lit.models.temporal.conv_lstm import ConvLSTM
from bipose_lit.types import BiposeError

PATH = "bipose_lit.models.temporal.conv_lstm.ConvLSTM"


class Pair(Part):
    def __init__(self, parts: list[Part], table: dict[str, Part]) -> None:
        super().__init__()
        self.parts, self.table = parts, table


def test_nested_parts_come_back():
    pair = Pair([ConvLSTM(4), ConvLSTM(5)], {"x": ConvLSTM(6)})
    again = instantiate(pair.config())
    assert isinstance(again, Pair)
    assert again.config() == pair.config()
    assert again.table["x"].hidden == 6


def test_values_that_are_no_part_pass():
    assert instantiate(None) is None
    assert instantiate([1, "a", {"b": 2}]) == [1, "a", {"b": 2}]


def test_kind_is_held():
    assert instantiate({"class_path": "pathlib.PurePosixPath"}, PurePath) == PurePosixPath()
    with pytest.raises(BiposeError, match=r"is no pathlib\.PurePath"):
        instantiate({"class_path": PATH}, PurePath)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"class_path": "ConvLSTM"}, "names no module"),
        ({"class_path": "no_such_package.Head"}, "no module no_such_package"),
        ({"class_path": PATH[:-1]}, "has no class ConvLST; it has ConvLSTM"),
        ({"class_path": "bipose_lit.models.temporal.recurrence.scan"}, "is no torch.nn.modules.module.Module"),
        ({"class_path": PATH, "init_args": {"widht": 3}}, "widht"),
        ({"class_path": PATH, "hidden": 3}, "belong under init_args"),
    ],
)
def test_failures_say_what_to_do(config, told):
    with pytest.raises(BiposeError, match=told):
        instantiate(config)
