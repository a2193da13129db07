"""Scenes: every image of a split with all its people, one warp, masks where nobody knows, batches padded with nobody."""

import json

import numpy as np
import pytest
import torch
from scene_sets import CROWD, SIZE, UNLABELLED, people_of, write_scenes

from bipose_lit import geometry
from bipose_lit.datasets.coco import COCO
from bipose_lit.datasets.pixel import ColourJitter
from bipose_lit.datasets.scene_samples import SceneDataset, blank, collate_scenes, unknown_mask
from bipose_lit.datasets.transforms import Augmentation, View
from bipose_lit.types import AbsentSplitError, BiposeError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def index(root):
    return COCO(root, val_fraction=0.0).scenes("train")


def dataset(index, size=(96, 96), **options) -> SceneDataset:
    return SceneDataset(index.scenes, index.skeleton, size, 8, **options)


# --- what the reader finds -------------------------------------------------------------------------------------------


def test_every_image_is_a_scene(root, index):
    assert index.name == "coco/train2017[whole-image]"
    assert [s.image for s in index.scenes] == [1, 2, 3, 4, 5, 6]
    assert [len(s.joints) for s in index.scenes] == [2, 1, 0, 2, 1, 2]
    np.testing.assert_allclose(index.scenes[3].joints, people_of(4, 2), atol=0.01)
    assert (index.scenes[0].visible == 2).all()
    assert index.scenes[0].unknown.tolist() == [CROWD, UNLABELLED]
    assert all(s.size == SIZE for s in index.scenes)
    test = COCO(root).scenes("test")
    assert [s.image for s in test.scenes] == [101, 102, 103]
    assert len(test.truth) == 3
    assert test.truth.images.tolist() == [101, 102, 103], "an image of nobody is scored too"


def test_splits_are_those_of_persons(root):
    reader = COCO(root, val_fraction=0.3)
    for split in ("train", "val", "test"):
        scenes, tracks = reader.scenes(split), reader.index(split)
        held = {s.frames.names[0] for s in scenes.scenes}
        assert {t.frames.names[0] for t in tracks.tracks} <= held
        assert {s.cluster for s in scenes.scenes} == set(scenes.clusters)
    assert not set(reader.scenes("train").clusters) & set(reader.scenes("val").clusters)
    with pytest.raises(AbsentSplitError, match="raise val_fraction"):
        COCO(root, val_fraction=0.0).scenes("val")
    with pytest.raises(BiposeError, match="split 'all' is none of train, val, test"):
        reader.scenes("all")


@pytest.mark.parametrize("field", ["width", "height", "file_name"])
def test_images_that_cannot_be_used_are_told(field, tmp_path):
    root = write_scenes(tmp_path, {"train": (1, 1), "val": (1,)})
    path = root / "annotations" / "person_keypoints_train2017.json"
    content = json.loads(path.read_text())
    del content["images"][0][field]
    path.write_text(json.dumps(content))
    index = COCO(root, val_fraction=0.0, cache=False).scenes("train")
    assert [s.image for s in index.scenes] == [2]
    assert index.skipped["images without file_name, width or height"] == ["person_keypoints_train2017.json: id 1"]
    assert len(index.truth) == 4, "whoever is in it counts as missed"
    content["images"] = content["images"][:1]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 1]
    path.write_text(json.dumps(content))
    with pytest.raises(BiposeError, match=r"no image in the split train; left out: images without file_name"):
        COCO(root, val_fraction=0.0, cache=False).scenes("train")


# --- samples ---------------------------------------------------------------------------------------------------------


def test_the_whole_image_is_fitted_into_the_frame(index):
    sample = dataset(index, (96, 96)).sample(3)
    assert sample.images.shape == (1, 3, 96, 96)
    assert not sample.images[..., :10, :].any(), "black above"
    assert sample.images[..., 14:82, :].all(axis=1).any(axis=-1).all()
    back = geometry.apply(np.repeat(sample.to_image, 2, axis=0), sample.joints[0])
    np.testing.assert_allclose(back, people_of(4, 2), atol=0.01)


@pytest.mark.parametrize(
    "view", [View(), View(flip=True), View(1.3, 25.0, (0.1, -0.05)), View(0.7, -170.0, (0, 0.1), True)]
)
def test_pixels_and_joints_move_by_one_matrix(index, view):
    """Each joint lies on its own colour, left and right by name after a mirror."""
    from scene_sets import COLOURS

    plain = dataset(index, (384, 384))
    sample = plain.sample(4, view)
    seen = 0
    for k, (x, y) in enumerate(sample.joints[0, 0]):
        if not (4 < x < 380 and 4 < y < 380):
            continue
        own = COLOURS[index.skeleton.flip[k] if view.flip else k][::-1]
        rgb = sample.images[0, :, round(float(y)), round(float(x))].astype(int)
        seen += int(np.abs(rgb - own).max() < 60)
    assert seen >= 12, "some are painted over by their neighbours"


def inside(place, box) -> bool:
    return all(box[i] - 0.5 <= place[i] <= box[i] + box[i + 2] - 0.5 for i in (0, 1))


def test_what_is_unknown_is_masked(index):
    """Each pixel of the maps by the place of its centre in the image, for any view."""
    scene = index.scenes[0]
    for view in (View(), View(1.2, 33.0, (0.1, 0.0), True)):
        sample = dataset(index, (96, 96)).sample(0, view)
        for v, u in np.ndindex(12, 12):
            place = geometry.apply(sample.to_image.astype(float), np.array([[[u * 8 + 3.5, v * 8 + 3.5]]]))[0, 0]
            expected = any(inside(place, b) for b in (CROWD, UNLABELLED)) and not any(
                inside(place, b) for b in scene.boxes
            )
            assert sample.ignore[0, v, u] == expected
    assert dataset(index, (96, 96)).sample(0).ignore.any()
    assert not dataset(index).sample(1).ignore.any()


def test_boxes_of_the_labelled_are_taken_out_of_crowds(index):
    from dataclasses import replace

    scene = replace(index.scenes[0], unknown=np.array([[0.0, 0.0, 96.0, 72.0]]))
    mask = unknown_mask(scene, np.eye(2, 3), (12, 9), 8)
    assert mask.any()
    assert not mask.all()
    empty = replace(scene, boxes=np.zeros((0, 4)))
    assert unknown_mask(empty, np.eye(2, 3), (12, 9), 8).all()


def test_samples_are_a_function_of_seed_epoch_and_item(index):
    def make(seed):
        return dataset(index, augmentation=Augmentation(), pixels=ColourJitter(), seed=seed)

    one, two = make(3)[2, 1], make(3)[2, 1]
    for name in ("images", "joints", "visible", "ignore", "to_image"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    for other in (make(4)[2, 1], make(3)[3, 1], make(3)[2, 3]):
        assert not np.array_equal(one.to_image, other.to_image)
    assert np.array_equal(dataset(index)[7, 1].images, dataset(index)[1].images)
    jittered = dataset(index, pixels=ColourJitter(probability=1.0))[1]
    np.testing.assert_array_equal(jittered.joints, dataset(index)[1].joints)
    assert not np.array_equal(jittered.images, dataset(index)[1].images)


def test_a_missing_picture_is_one_line(tmp_path):
    root = write_scenes(tmp_path, {"train": (1,), "val": (1,)})
    (root / "train2017" / "000000000001.png").unlink()
    index = COCO(root, val_fraction=0.0).scenes("train")
    with pytest.raises(BiposeError, match=r"000000000001.png: cannot read the image .*check the data set's folder"):
        dataset(index)[0]


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_has_room_for_the_fullest_image(index):
    data = dataset(index)
    batch = collate_scenes([data[i] for i in (1, 2, 0)])
    assert batch.people[:, 0].tolist() == [[True, False], [False, False], [True, True]]
    assert batch.joints.shape == (3, 1, 2, 17, 2)
    assert not batch.visible[~batch.people].any()
    assert batch.image.tolist() == [[2], [3], [1]]
    assert batch.images.shape == (3, 1, 3, 96, 96)
    assert batch.ignore.shape == (3, 1, 12, 12)
    assert batch.features is None
    nobody = collate_scenes([data[2]])
    assert nobody.joints.shape == (1, 1, 0, 17, 2)
    assert len(nobody) == 1


def test_a_batch_moves_and_flips(index):
    batch = collate_scenes([dataset(index)[i] for i in (0, 1)])
    same = batch.to("cpu")
    assert torch.equal(same.images, batch.images)
    assert same.supervise is None
    assert torch.equal(batch.flipped().images, batch.images.flip(-1))
    assert torch.equal(batch.flipped().joints, batch.joints)


def test_a_blank_sample_teaches_nothing(index):
    sample = blank(dataset(index)[0])
    assert not sample.visible.any()
    assert sample.ignore.all()
