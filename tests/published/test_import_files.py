"""`bipose import-weights` writes over its own files and no others."""

import json

import naming
import pytest
import torch
import yaml
from naming import named
from safetensors import safe_open
from safetensors.torch import save_file

from bipose_lit.__main__ import main
from bipose_lit.published import command
from bipose_lit.published.command import import_weights
from bipose_lit.types import BiposeError


@pytest.fixture
def path(tmp_path):
    """A checkpoint that is not read."""
    (tmp_path / "pose.pth").touch()
    return tmp_path / "pose.pth"


@pytest.fixture
def unread(monkeypatch):
    """Whoever reads the checkpoint fails."""

    def fail(*args):
        raise AssertionError("it was read")

    monkeypatch.setattr(command, "read_checkpoint", fail)


def mine(folder):
    """Files of a user in the three places."""
    save_file({"conv1.weight": torch.zeros(1)}, str(folder / "pose.safetensors"), metadata={"format": "pt"})
    (folder / "pose.json").write_text(json.dumps({"made_by": {"name": "a run"}}))
    (folder / "pose.yaml").write_text("model: {joints: 17}\n")
    return {suffix: folder / f"pose{suffix}" for suffix in (".safetensors", ".json", ".yaml")}


@pytest.mark.parametrize("suffix", [".safetensors", ".json", ".yaml"])
@pytest.mark.parametrize("named_out", [True, False])
def test_a_users_file_stays(tmp_path, path, unread, suffix, named_out):
    for other, file in mine(tmp_path).items():
        if other != suffix:
            file.unlink()
    place = tmp_path / f"pose{suffix}"
    before = place.read_bytes()
    with pytest.raises(BiposeError) as error:
        import_weights(path, "simplebaseline", tmp_path / "pose.safetensors" if named_out else None)
    assert str(error.value) == f"{place} (not written by this command) would be replaced; give another --out"
    assert place.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == sorted([path, place])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe broken", b"[1]", b'{"made_from": 3}', b"# by hand\nmodel: {}\n"])
def test_what_is_like_none_of_ours_stays(tmp_path, path, unread, content):
    for suffix in (".safetensors", ".json", ".yaml"):
        place = tmp_path / f"pose{suffix}"
        place.write_bytes(content)
        with pytest.raises(BiposeError, match="not written by this command"):
            import_weights(path, "simplebaseline")
        place.unlink()
        place.mkdir()
        with pytest.raises(BiposeError, match="not written by this command"):
            import_weights(path, "simplebaseline")
        place.rmdir()


def test_all_of_a_users_files_are_told_in_a_line(tmp_path, path, unread, capsys):
    files = mine(tmp_path)
    assert main(["import-weights", str(path), "--from", "simplebaseline"]) == 1
    told = capsys.readouterr().err
    assert all(str(file) in told for file in files.values())
    assert told.count("\n") == 1


def test_its_own_files_are_replaced(save, tmp_path):
    """And what is left of them after a run that was broken off."""
    net = naming.simplebaseline()
    path = save(named(net, naming.SIMPLEBASELINE), "pose.pth")
    import_weights(path, "simplebaseline")
    files = [tmp_path / f"pose{suffix}" for suffix in (".safetensors", ".json", ".yaml")]
    texts = [file.read_text() for file in files[1:]]
    with safe_open(str(files[0]), "pt") as handle:
        save_file({"other": torch.zeros(1)}, str(files[0]), metadata=handle.metadata())
    files[1].unlink()
    files[2].write_text(files[2].read_text().partition("\n")[0])
    import_weights(path, "simplebaseline")
    assert naming.same(naming.made(files[0]), net)
    assert [file.read_text() for file in files[1:]] == texts


def test_a_given_configuration_stays(tmp_path, path, unread):
    """The default name beside HRNET.pth is HRNET.yaml, which may be what was given by -c; even an overlay of ours."""
    given = tmp_path / "pose.yaml"
    given.write_text("# a network, from pose.pth by 'bipose import-weights --from simplebaseline'.\nmodel: {}\n")
    with pytest.raises(BiposeError, match=r"pose\.yaml \(given by -c\) would be replaced; give another --out"):
        import_weights(path, "simplebaseline", None, {}, [tmp_path / "." / "pose.yaml"])
    assert yaml.safe_load(given.read_text()) == {"model": {}}


@pytest.mark.parametrize("name", ["ours.yaml", "ours.json", "ours", "ours.pth", ".safetensors"])
def test_weights_are_written_as_safetensors_alone(tmp_path, path, unread, name):
    with pytest.raises(BiposeError, match=r"must end in \.safetensors"):
        import_weights(path, "simplebaseline", tmp_path / name)
    assert list(tmp_path.iterdir()) == [path]


def test_not_over_the_checkpoint(tmp_path, unread):
    path = tmp_path / "model.safetensors"
    save_file({"conv1.weight": torch.zeros(1)}, str(path))
    with pytest.raises(BiposeError, match="the checkpoint itself"):
        import_weights(path, "timm", path)
