"""`bipose data check | spectra | make`: what is printed, and what a wrong option is told."""

import numpy as np
import pytest
from tiny_sets import write_coco, write_penn, write_video_json

from bipose_lit.__main__ import main
from bipose_lit.datasets import commands
from bipose_lit.datasets.commands import SHOWN, spectra
from bipose_lit.types import BiposeError


@pytest.fixture(scope="module")
def penn(tmp_path_factory):
    return write_penn(tmp_path_factory.mktemp("made") / "penn")


def test_a_sound_set_ends_with_0_and_a_table(penn, capsys, tmp_path):
    assert main(["data", "check", "penn", str(penn), "--pixels", "decode", "--json", str(tmp_path / "r.json")]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["split", "clips", "persons", "pictures", "sources", "joints", "hidden"]
    assert lines[3].split() == ["test", "2", "6", "6", "2", "78", "0%"]
    assert "note: a sample of the set (2)" in lines
    assert lines[-1] == f"{penn}: nothing wrong"
    assert err == ""
    assert (tmp_path / "r.json").exists()


def test_faults_are_grouped_and_cut_and_end_with_1(tmp_path, capsys):
    root = write_penn(tmp_path / "penn", clips=2, T=30)
    for path in sorted((root / "frames" / "0002").iterdir())[1:20]:
        path.unlink()
    (root / "frames" / "0001" / "000003.jpg").write_bytes(b"")
    assert main(["data", "check", "penn", str(root), "--no-counts"]) == 1
    out = capsys.readouterr().out
    assert "wrong: empty files (1)\n  frames/0001/000003.jpg\n" in out
    assert "published" not in out
    names = commands.check("penn", root, counts=False, every=True)
    assert names == 1


def test_the_first_places_and_all(tmp_path, capsys):
    root = write_coco(tmp_path, people=([1] * 30, (1,)))
    for path in sorted((root / "train2017").iterdir())[:20]:
        path.unlink()
    assert main(["data", "check", "coco", str(root)]) == 1
    out = capsys.readouterr().out
    assert f"  ... and {20 - SHOWN} more (--all)" in out
    assert out.rstrip().endswith("20 faults")
    assert main(["data", "check", "coco", str(root), "--all"]) == 1
    assert "more (--all)" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["check", "pen", "."], 1, "did you mean penn?"),
        (["check", "penn", "nowhere"], 1, "nowhere: no such folder"),
        (["check", "penn", ".", "--pixels", "some"], 2, "it is one of: exist, decode"),
        (["check", "penn", ".", "--limit", "0"], 2, "'0' is not a whole number above 0"),
        (["check", "penn", ".", "--al"], 2, "did you mean --all?"),
        (["check", "penn"], 2, "ROOT"),
        (["check", "penn", ".", "--limit", "3"], 1, "--limit 3: says how many pictures to decode; add --pixels decode"),
        (["show", "penn", ".", "--out", "x.png", "--split", "dev"], 2, "it is one of: train, val, test"),
        (["show", "penn", "."], 2, "--out"),
        (["show", "penn", ".", "--out", "x.gif"], 1, "ends in none of .png, .html"),
        (["show", "penn", ".", "--out", "x.png", "--clips", "-1"], 2, "is not a whole number above 0"),
        (["fetch", "coko"], 1, "did you mean coco?"),
        (["fetch", "coco", "--only", "val.zip"], 1, "coco has no file 'val.zip'"),
        (["fetch", "h36m"], 1, "is not for plain download (request)"),
        (["fetch", "synthetic"], 1, "is made by you"),
        (["fetchs"], 2, "did you mean fetch?"),
    ],
)
def test_wrong_options(tmp_path, monkeypatch, capsys, arguments, status, told):
    monkeypatch.chdir(tmp_path)
    try:
        found = main(["data", *arguments])
    except SystemExit as stop:
        found = stop.code
    assert found == status
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


def test_json_into_a_folder(penn, tmp_path):
    with pytest.raises(BiposeError, match=r"--json .*: is a folder; name a file"):
        commands.check("penn", penn, json=tmp_path)


def test_fetch_without_a_name_lists(capsys):
    assert main(["data", "fetch"]) == 0
    out = capsys.readouterr().out
    assert "posetrack18     licence click" in out
    assert "mocap           open, by hand" in out
    assert main(["data", "fetch", "coco", "--list"]) == 0
    assert "md5:442b8da7639aecaf257c1dceb8ba8c80" in capsys.readouterr().out


def test_ones_own_set(tmp_path, capsys):
    root = write_video_json(tmp_path)
    assert main(["data", "check", "video_json", str(root), "--skeleton", str(root / "hands.yaml")]) == 0
    assert main(["data", "check", "video_json", str(root)]) == 1
    assert "needs --skeleton" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [0, 1, -4, np.nan, np.inf])
def test_pieces_too_short_for_a_spectrum(tmp_path, seconds):
    with pytest.raises(BiposeError, match="a spectrum with bands of half a hertz needs 2 or more"):
        spectra([tmp_path / "x.bvh"], seconds)


@pytest.mark.real_data
def test_spectra_of_captured_motion_are_printed(real_data, capsys):
    commands.spectra(sorted((real_data / "mocap" / "cmu").glob("*.bvh"))[:1])
    out = capsys.readouterr().out
    assert "captured" in out
    assert "legs" in out


def test_statistics_print_as_a_table():
    row = {"clips": 2, "hidden": 0.25, "runs": 7, "median": 9.0, "p90": 20.0, "touching": 0.75, "share_P": 0.5, "share_F": 0.5,
           "share_B": 0.0, "share_N": 0.0}  # fmt: skip
    none = {**row, "runs": 0, "median": None, "p90": None, "touching": None, "share_P": None}
    text = commands.describe({"statistics": {"train": {"all": row, "N": none}}})
    lines = text.splitlines()
    assert lines[1].split() == ["train", "all", "2", "25%", "7", "9", "20", "75%", "50%", "50%", "0%", "0%"]
    assert lines[2].split()[4:8] == ["0", "-", "-", "-"]
