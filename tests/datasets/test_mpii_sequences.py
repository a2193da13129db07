"""Clips around MPII's pictures, on trees made in the release's layout."""

import numpy as np
import pytest
from mpii_sets import persons, picture, write_json, write_keyframes

from bipose_lit.datasets.mpii import MPII
from bipose_lit.datasets.mpii_release import KEYFRAMES
from bipose_lit.datasets.mpii_sequences import BATCHES, MPIISequences
from bipose_lit.types import ABSENT, NORMS, BiposeError

STEMS = ("015601864", "015601865", "015599452", "015599453")


@pytest.fixture
def tree(tmp_path):
    """Four pictures, the first two in batch 1; frames 1 to 9, of which number 5 is the picture."""
    for number, name in enumerate(("train", "valid")):
        write_json(tmp_path / "annot" / f"{name}.json", persons(4, number), [f"{stem}.jpg" for stem in STEMS])
    for i, stem in enumerate(STEMS):
        picture(tmp_path / "images" / f"{stem}.jpg", 100)
        for frame in range(1, 10):
            picture(tmp_path / f"{BATCHES}{1 + i // 2}" / stem / f"{frame:08d}.jpg", 20 * frame)
    write_keyframes(tmp_path / KEYFRAMES, [f"{stem}/00000005.jpg" for stem in STEMS])
    return tmp_path


def frame(root, stem, number):
    (batch,) = [p for p in root.glob(f"{BATCHES}*") if (p / stem).is_dir()]
    return batch / stem / f"{number:08d}.jpg"


def test_the_middle_frame_alone_is_labelled(tree):
    stills = MPII(tree, name="mpii_sequences").index("test")
    index = MPIISequences(tree, neighbours=2).index("test")
    assert index.name == "mpii_sequences/test[gt-box]"
    assert index.skipped == {}
    assert index.scoring is not None
    for clip, still in zip(index.tracks, stills.tracks, strict=True):
        assert len(clip) == len(clip.frames) == 5
        np.testing.assert_array_equal(clip.visible[2], still.visible[0])
        np.testing.assert_array_equal(clip.joints[2], still.joints[0])
        np.testing.assert_array_equal(clip.norms[2], still.norms[0])
        others = [0, 1, 3, 4]
        assert (clip.visible[others] == ABSENT).all()
        assert (clip.joints[others] == 0).all()
        assert np.isnan(clip.norms[others][:, NORMS.index("head")]).all()
        np.testing.assert_array_equal(clip.boxes, np.repeat(still.boxes, 5, axis=0))
        assert clip.uid[2] == still.uid[0]
        levels = [float(image.mean()) for image in clip.frames.read(range(5))]
        np.testing.assert_allclose(levels, [60, 80, 100, 120, 140], atol=2)
    uids = np.concatenate([t.uid for t in index.tracks])
    assert len(np.unique(uids)) == 20


def test_missing_neighbours_make_shorter_clips(tree):
    frame(tree, STEMS[0], 4).unlink()  # 3 is not next to the picture any more
    frame(tree, STEMS[1], 7).unlink()
    index = MPIISequences(tree, neighbours=2).index("test")
    first, second = index.tracks[:2]
    assert [len(t) for t in index.tracks] == [3, 4, 5, 5]
    assert first.visible.any(axis=1).tolist() == [True, False, False]
    assert second.visible.any(axis=1).tolist() == [False, False, True, False]
    assert index.skipped == {
        "fewer frames around the picture, shorter clip": [f"valid/{STEMS[0]}.jpg/0 (3)", f"valid/{STEMS[1]}.jpg/0 (4)"]
    }


def test_at_the_ends_and_without_neighbours(tree):
    write_keyframes(tree / KEYFRAMES, [f"{stem}/{n:08d}.jpg" for stem, n in zip(STEMS, (1, 9, 2, 8), strict=True)])
    assert [len(t) for t in MPIISequences(tree, neighbours=3).index("test").tracks] == [4, 4, 5, 5]
    assert [len(t) for t in MPIISequences(tree, neighbours=0).index("test").tracks] == [1, 1, 1, 1]


def test_what_has_no_clip_is_left_out_and_told(tree):
    frame(tree, STEMS[0], 5).unlink()
    picture(frame(tree, STEMS[1], 5), 100, (32, 24))
    frame(tree, STEMS[2], 5).write_bytes(b"no picture")
    index = MPIISequences(tree).index("test")
    assert [t.clip for t in index.tracks] == [f"valid/{STEMS[3]}.jpg/0"]
    assert index.skipped == {
        "pictures whose key frame is missing": [f"valid/{STEMS[0]}.jpg/0"],
        "pictures whose key frame has another size": [f"valid/{STEMS[1]}.jpg/0"],
        "pictures whose key frame cannot be read": [f"valid/{STEMS[2]}.jpg/0"],
    }
    write_keyframes(tree / KEYFRAMES, [f"{stem}/00000005.jpg" for stem in STEMS[:3]])
    with pytest.raises(BiposeError, match="no frames around the pictures of test"):
        MPIISequences(tree).index("test")


def test_pictures_themselves_need_not_be_there(tree):
    for path in (tree / "images").iterdir():
        path.unlink()
    index = MPIISequences(tree).index("test")
    assert index.skipped == {}
    assert index.tracks[0].image_size == (64, 48)


def test_what_the_user_gets_told(tree):
    with pytest.raises(BiposeError, match="neighbours"):
        MPIISequences(tree, neighbours=-1)
    (tree / KEYFRAMES).write_bytes(b"broken")
    with pytest.raises(BiposeError, match="keyframes"):
        MPIISequences(tree).index("test")
    (tree / KEYFRAMES).unlink()
    with pytest.raises(BiposeError, match="keyframes"):
        MPIISequences(tree).index("test")
    for batch in tree.glob(f"{BATCHES}*"):
        batch.rename(tree / f"other{batch.name[-1]}")
    with pytest.raises(BiposeError, match="unpack the frames"):
        MPIISequences(tree)
