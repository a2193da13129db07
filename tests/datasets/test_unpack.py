"""Archives: what is in them arrives, what would leave the folder is refused whole."""

import io
import tarfile
import zipfile

import pytest

from bipose_lit.datasets.unpack import DamagedArchiveError, unpack
from bipose_lit.types import BiposeError


def make_zip(path, files):
    with zipfile.ZipFile(path, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return path


def make_tar(path, files, link=None):
    with tarfile.open(path, "w:gz") as packed:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            packed.addfile(info, io.BytesIO(text.encode()))
        if link:
            info = tarfile.TarInfo("labels/link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            packed.addfile(info)
    return path


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_all_files_arrive_beside_what_is_there(tmp_path, make):
    archive = make(
        tmp_path / ("a.zip" if make is make_zip else "a.tar.gz"), {"labels/1.mat": "one", "labels/2.mat": "two"}
    )
    target = tmp_path / "set"
    (target / "labels").mkdir(parents=True)
    (target / "labels" / "0.mat").write_text("old")
    (target / "labels" / "1.mat").write_text("stale")
    assert unpack(archive, target) == ["labels"]
    assert tree(target) == {"labels/0.mat": "old", "labels/1.mat": "one", "labels/2.mat": "two"}
    assert [p.name for p in target.iterdir()] == ["labels"]


def test_the_top_folder_is_dropped_and_junk_is_left_out(tmp_path):
    files = {
        "Top/labels/1.mat": "one",
        "Top/README": "r",
        "__MACOSX/Top/._README": "x",
        "Top/.DS_Store": "x",
        "./alone": "a",
    }
    assert unpack(make_tar(tmp_path / "a.tar.gz", files), tmp_path / "set", "Top") == ["README", "alone", "labels"]
    assert tree(tmp_path / "set") == {"labels/1.mat": "one", "README": "r", "alone": "a"}


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "C:/evil", "..\\evil", "a\\..\\..\\evil"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_members_that_would_leave_the_folder_are_refused(tmp_path, make, name):
    archive = make(tmp_path / ("a.zip" if make is make_zip else "a.tar.gz"), {"good": "1", name: "2"})
    with pytest.raises(BiposeError, match="would leave the folder"):
        unpack(archive, tmp_path / "deep" / "set")
    assert tree(tmp_path / "deep") == {}
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("link", ["/etc/passwd", "../../outside", "1.mat"])
def test_links_are_refused(tmp_path, link):
    with pytest.raises(BiposeError, match="link or a device"):
        unpack(make_tar(tmp_path / "a.tar.gz", {"labels/1.mat": "one"}, link), tmp_path / "set")
    assert tree(tmp_path / "set") == {}


def test_a_link_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        packed.writestr(info, "/etc/passwd")
    with pytest.raises(BiposeError, match="link or a device"):
        unpack(tmp_path / "a.zip", tmp_path / "set")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04" + b"\0" * 40, b"\x1f\x8b\x08" + b"\0" * 40])
def test_damaged_archives_are_told(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BiposeError, match=name):
        unpack(tmp_path / name, tmp_path / "set")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_truncated_archives_leave_nothing(tmp_path, make):
    archive = make(tmp_path / ("a.zip" if make is make_zip else "a.tar.gz"), {f"{i}": f"{i}" * 5000 for i in range(50)})
    data = archive.read_bytes()
    for cut in (len(data) // 3, len(data) - 30):
        archive.write_bytes(data[:cut])
        with pytest.raises(BiposeError, match=r"not a readable archive"):
            unpack(archive, tmp_path / "set")
        assert tree(tmp_path / "set") == {}


def test_a_missing_archive_and_an_empty_one(tmp_path):
    with pytest.raises(BiposeError, match="cannot be unpacked"):
        unpack(tmp_path / "none.zip", tmp_path / "set")
    with pytest.raises(BiposeError, match="holds no file"):
        unpack(make_zip(tmp_path / "a.zip", {}), tmp_path / "set")


@pytest.mark.parametrize(("there", "packed"), [("z/x", "z"), ("z", "z/x")])
def test_a_file_where_a_folder_is_leaves_all_as_it_was(tmp_path, there, packed):
    target = tmp_path / "set"
    (target / there).parent.mkdir(parents=True)
    (target / there).write_text("mine")
    archive = make_zip(tmp_path / "a.zip", {"a": "first", packed: "theirs"})
    with pytest.raises(BiposeError, match=r"set/z: is a (file|folder) where .*a\.zip has a (file|folder); move it"):
        unpack(archive, target)
    assert tree(target) == {there: "mine"}


@pytest.mark.parametrize("name", ["downloads/a.done", "downloads", "DOWNLOADS/a", "Top/downloads/a"])
def test_reserved_names(tmp_path, name):
    archive = make_zip(tmp_path / "a.zip", {"a": "a", name: "x"})
    with pytest.raises(DamagedArchiveError, match="would lie where downloads are kept"):
        unpack(archive, tmp_path / "set", "Top", ("downloads",))
    assert tree(tmp_path / "set") == {}
    make_zip(tmp_path / "b.zip", {"labels/downloads/a": "x"})
    assert unpack(tmp_path / "b.zip", tmp_path / "set", "Top", ("downloads",)) == ["labels"]
