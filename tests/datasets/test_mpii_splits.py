"""What MPII's splits may share: pictures of the published validation list, and pictures of one video."""

import json
from itertools import pairwise

import numpy as np
import pytest
from mpii_sets import persons, write_h5, write_json, write_release

from bipose_lit.datasets import mpii as reader_module
from bipose_lit.datasets.mpii import MPII
from bipose_lit.datasets.mpii_files import People
from bipose_lit.datasets.mpii_sequences import BATCHES, MPIISequences
from bipose_lit.datasets.mpii_splits import BLOCK, has_labels, listed_pictures, sources
from bipose_lit.types import BiposeError

N = 20
IMAGES = [f"p{i:03d}.jpg" for i in range(N)]
VIDEOS = [float(i // 2) + 1 for i in range(N)]
LISTED = [3, 8, 9]
OF_THEIR_VIDEOS = {2, 3, 8, 9}
RELEASE = "mpii_human_pose_v1_u12_1.mat"


@pytest.fixture
def release(tmp_path):
    write_release(tmp_path / RELEASE, persons(N), IMAGES, VIDEOS)
    return tmp_path


def some(people, rows):
    return {key: values[rows] for key, values in people.items()}


def pictures(index):
    return {track.clip.split("/")[1] for track in index.tracks}


def put_list(root, kind):
    listed, names = some(persons(N), LISTED), [IMAGES[i] for i in LISTED]
    if kind == "valid.json":
        write_json(root / "annot" / "valid.json", listed, names)
    elif kind == "valid.h5":
        write_h5(root / "annot" / "valid.h5", listed, names)
    elif kind == "h5 without names":
        write_h5(root / "valid.h5", listed, names, imgname=None)
        (root / "valid_images.txt").write_text("\n".join(names) + "\n")
    elif kind == "broken entries":
        write_json(root / "annot" / "valid.json", listed, names)
        found = json.loads((root / "annot" / "valid.json").read_text())
        del found[0]["joints"], found[1]["center"]  # no person, but the picture is listed all the same
        (root / "annot" / "valid.json").write_text(json.dumps([3, *found]))
    else:
        (root / "annot").mkdir()
        (root / "annot" / "valid_images.txt").write_text("\n".join(names) + "\n")


@pytest.mark.parametrize("kind", ["valid.json", "valid.h5", "h5 without names", "valid_images.txt", "broken entries"])
def test_the_owners_file_without_the_published_validation_pictures_and_their_videos(release, kind):
    put_list(release, kind)
    reader = MPII(release, annotations="mat", val_fraction=0.2)
    train, val = reader.index("train"), reader.index("val")
    kept = {IMAGES[i] for i in set(range(N)) - OF_THEIR_VIDEOS}
    assert pictures(train) | pictures(val) == kept
    assert not pictures(train) & pictures(val)
    assert not set(train.clusters) & set(val.clusters)
    for index in (train, val):
        (told,) = [where for reason, where in index.skipped.items() if "published validation list" in reason]
        assert told[0].endswith("(3 pictures, 1 more of their videos)")


def test_without_the_list_the_overlap_is_told(release):
    index = MPII(release).index("train")
    (told,) = [reason for reason in index.skipped if "published validation list" in reason]
    assert "leaks" in told


def test_a_list_of_other_pictures(release):
    (release / "valid_images.txt").write_text("x.jpg\n")
    (told,) = [reason for reason in MPII(release).index("train").skipped if "published validation list" in reason]
    assert "shares no picture" in told


def test_nobody_is_left_beside_the_list(release):
    (release / "valid_images.txt").write_text("\n".join(IMAGES))
    with pytest.raises(BiposeError, match=r"valid_images\.txt"):
        MPII(release).index("train")


def test_a_damaged_list_is_not_passed_over(release):
    (release / "annot").mkdir()
    (release / "annot" / "valid.json").write_text('{"image": 1}')
    for strict in (True, False):
        with pytest.raises(BiposeError, match=r"valid\.json"):
            MPII(release, annotations="mat", strict=strict).index("train")
    (release / "annot" / "valid.json").write_text("[1, 2]")
    with pytest.raises(BiposeError, match=r"valid\.json: names no picture"):
        MPII(release, annotations="mat").index("train")


def test_the_owners_file_has_no_test_split(release):
    with pytest.raises(BiposeError, match="withhold the test labels") as raised:
        MPII(release).index("test")
    assert "shares its pictures" in str(raised.value)
    assert "beside" not in str(raised.value).split("withhold")[1].split(";")[0]


def test_train_that_has_no_list_of_its_own_points_at_the_owners_file(release):
    put_list(release, "valid.h5")
    with pytest.raises(BiposeError, match=r"train\.h5: no such list.*annotations mat"):
        MPII(release).index("train")


def test_videos_unknown(tmp_path):
    write_release(tmp_path / RELEASE, persons(N), IMAGES)
    (tmp_path / "valid_images.txt").write_text(IMAGES[3])
    reader = MPII(tmp_path, val_fraction=0.2)
    train, val = reader.index("train"), reader.index("val")
    assert pictures(train) | pictures(val) == set(IMAGES) - {IMAGES[3]}
    assert set(train.clusters) | set(val.clusters) == set(IMAGES) - {IMAGES[3]}


def people(images, rows=None, clusters=None):
    n = len(images)
    nowhere = np.full((n, 2), np.nan)
    return People(
        np.arange(n) if rows is None else np.array(rows), tuple(images), (0,) * n, np.zeros((n, 16, 2)),
        np.zeros((n, 16), np.uint8), nowhere, nowhere[:, 0], nowhere[:, 0], tuple(clusters or ("",) * n),
    )  # fmt: skip


def test_neighbours_in_a_list_are_held_out_together():
    images = [f"{i // 2}.jpg" for i in range(4001)]
    found = sources(people(images))
    assert len(found) == 4001
    runs = [found[i] != found[i - 1] for i in range(1, 4001)]
    assert len(set(found)) == sum(runs) + 1 == -(-4001 // BLOCK)  # every source is one run
    assert len({(image, source) for image, source in zip(images, found, strict=True)}) == len(set(images))


def test_blocks_do_not_move_when_persons_are_left_out():
    images = [f"{i}.jpg" for i in range(2000)]
    whole = dict(zip(images, sources(people(images)), strict=True))
    rows = [i for i in range(2000) if i % 7]
    part = [images[i] for i in rows]
    assert sources(people(part, rows)) == [whole[image] for image in part]


def test_a_picture_stays_whole_and_named_clusters_stay():
    images = ["a.jpg"] * 30 + ["b.jpg"] * 30
    assert len(set(sources(people(images)))) == 2
    assert sources(people(["a.jpg", "b.jpg"], clusters=["scene1", ""]))[0] == "scene1"


def test_val_of_a_long_list_is_made_of_runs(tmp_path):
    count = 1200
    write_json(tmp_path / "train.json", persons(count), [f"{i:05d}.jpg" for i in range(count)], truth=False)
    reader = MPII(tmp_path, val_fraction=0.1)
    val = sorted(int(name[:5]) for name in pictures(reader.index("val")))
    assert len(val) == 3 * BLOCK  # 24 blocks
    assert sum(b != a + 1 for a, b in pairwise(val)) <= 2
    assert not set(val) & {int(name[:5]) for name in pictures(reader.index("train"))}


def test_labels_of_a_test_list(tmp_path):
    path = tmp_path / "test.json"
    assert not has_labels(path)
    for entries in (
        [], [{"image": "x.jpg", "center": [1, 2], "scale": 2.0}], [{"image": "x.jpg", "note": "no \"joints\" here"}],
        [{"image": "x.jpg", "joints": [], "joints_vis": []}], [{"image": "x.jpg", "joints": None}],
        [{"image": "x.jpg", "joints": [[-1, -1]] * 16, "joints_vis": [0] * 16}], [7],
    ):  # fmt: skip
        path.write_text(json.dumps(entries))
        assert not has_labels(path), entries
    path.write_text(json.dumps([{}, {"image": "x.jpg", "joints": [[3, 4]] * 16, "joints_vis": [1] * 16}]))
    assert has_labels(path)
    path.write_text("{")
    with pytest.raises(BiposeError, match=r"test\.json"):
        has_labels(path)


def test_a_test_list_that_only_speaks_of_joints(tmp_path):
    for name in ("train", "valid"):
        write_json(tmp_path / "annot" / f"{name}.json", persons(4), [f"{name}{i}.jpg" for i in range(4)])
    (tmp_path / "annot" / "test.json").write_text(json.dumps([{"image": "x.jpg", "joints": [], "joints_vis": []}]))
    assert pictures(MPII(tmp_path).index("test")) == {f"valid{i}.jpg" for i in range(4)}
    (tmp_path / "manifest.json").touch()  # ours: the lists are the splits
    with pytest.raises(BiposeError, match=r"test\.json"):
        MPII(tmp_path).index("test")


def test_single_persons_are_named_and_refused_where_nothing_tells_them(tmp_path):
    write_release(tmp_path / RELEASE, persons(6), IMAGES[:6], VIDEOS[:6], single=[[1], [], [1], [1], [], [1]])
    index = MPII(tmp_path, single=True, val_fraction=0).index("train")
    assert index.name == "mpii/single/train[gt-box]"
    assert len(index.tracks) == 4
    write_json(tmp_path / "annot" / "valid.json", persons(4), IMAGES[:4])
    for annotations in ("auto", "json", "annot/valid.json"):
        with pytest.raises(BiposeError, match="single"):
            MPII(tmp_path, annotations=annotations, single=True)
    assert MPII(tmp_path, annotations="mat", single=True).single


def test_files_are_parsed_once(release, monkeypatch):
    seen = []
    parse = reader_module.read_release
    monkeypatch.setattr(reader_module, "read_release", lambda *a: seen.append(a) or parse(*a))
    reader = MPII(release, val_fraction=0.2)
    first, second = reader.index("train"), reader.index("val")
    again = reader.index("train")
    assert len(seen) == 1
    assert [t.clip for t in again.tracks] == [t.clip for t in first.tracks]
    assert again.skipped == first.skipped
    assert second.skipped == reader.index("val").skipped


def test_sequences_are_as_official_as_their_stills(tmp_path):
    for name in ("train", "valid"):
        write_json(tmp_path / "annot" / f"{name}.json", persons(4), IMAGES[:4])
    (tmp_path / f"{BATCHES}1").mkdir()
    assert MPIISequences(tmp_path).official is True
    (tmp_path / "manifest.json").touch()
    assert MPIISequences(tmp_path).official is False


@pytest.mark.real_data
def test_the_real_list_names_its_pictures(real_data):
    folder = real_data / "mpii_mini"
    found = listed_pictures(folder / "valid.h5")
    assert found == listed_pictures(folder / "valid_images.txt")
    assert len(found) == 2729
    assert len(listed_pictures(folder / "annot_sample.json")) == 5
