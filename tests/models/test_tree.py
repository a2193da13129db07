"""Trees of limbs: every joint once, by real limbs, and refiners that say when theirs is not the data's."""

import itertools

import pytest
import torch

from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.losses import HeatmapMSE
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.models.decoders.regression import RegressionDecoder
from bipose_lit.models.rebuild import instantiate
from bipose_lit.models.structured.pictorial import PictorialStructures
from bipose_lit.models.temporal.st_lstm import STLSTM
from bipose_lit.models.tree import spanning_tree
from bipose_lit.module import PoseModule
from bipose_lit.skeletons import SKELETONS, fields_of, make_skeleton
from bipose_lit.types import BiposeError, FeatureSpec


def letters(*limbs: str, count: int = 4):
    joints = [f"joint_{x}" for x in "abcdefgh"[:count]]  # some letters alone mean something else
    pairs = [[f"joint_{x}" for x in limb] for limb in limbs]
    return make_skeleton({"name": "letters", "joints": joints, "limbs": pairs, "torso": joints[:2]})


@pytest.mark.parametrize("name", SKELETONS)
def test_every_joint_hangs_on_one_other(name):
    skeleton = SKELETONS[name]
    tree, K = spanning_tree(skeleton), len(skeleton)
    assert len(tree.edges) == K - 1
    assert sorted(j for level in tree.levels for j in level) == list(range(K))
    for depth, level in enumerate(tree.levels):
        for joint in level:
            assert tree.parents[joint] in (tree.levels[depth - 1] if depth else (-1,))
    limbs = {frozenset(pair) for pair in skeleton.limb_indices.tolist()}
    loose = [edge for edge in tree.edges if frozenset(edge) not in limbs]
    assert all(parent == tree.root for _, parent in loose)
    assert len(loose) == {"coco": 1, "posetrack18": 2}.get(name, 0)
    assert len(tree.levels) <= 5, "the root is not in the middle"


@pytest.mark.parametrize("name", SKELETONS)
def test_tour_goes_along_limbs_and_back(name):
    tree = spanning_tree(SKELETONS[name])
    tour = tree.tour()
    assert len(tour) == 2 * len(SKELETONS[name]) - 1
    assert tour[0] == tour[-1] == tree.root
    walked = [frozenset(step) for step in itertools.pairwise(tour)]
    assert sorted(map(sorted, walked)) == sorted(2 * [sorted(edge) for edge in tree.edges]), "each limb there and back"


def test_circles_are_cut_and_what_is_apart_hangs_on_the_root():
    assert spanning_tree(letters("ab", "bc", "cd", "da")).edges == ((1, 0), (2, 1), (3, 0))
    assert spanning_tree(letters("bd", "dc")).levels == ((3,), (0, 1, 2)), "a is a part of its own"
    assert spanning_tree(letters()).levels == ((0,), (1, 2, 3))
    assert spanning_tree(letters("ab", "bc", "cd", "de", "fg", "gh", count=8)).parents == (1, 2, -1, 2, 3, 6, 2, 6)
    assert spanning_tree(letters("aa", "ab")).parents[:2] == (-1, 0)


@pytest.mark.parametrize("kind", [PictorialStructures, STLSTM])
def test_a_skeleton_from_a_file_is_kept_whole(kind, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("{name: own, joints: [hand, foot, tail], limbs: [[hand, foot]], torso: [hand, tail]}")
    refiner = kind(str(path))
    path.unlink()
    again = instantiate(refiner.config())
    assert again.skeleton == refiner.skeleton
    assert refiner.config()["init_args"]["skeleton"] == fields_of(refiner.skeleton)
    assert kind("coco").config()["init_args"]["skeleton"] == "coco"


@pytest.mark.parametrize("kind", [PictorialStructures, STLSTM])
def test_another_number_of_joints_is_told(kind):
    with pytest.raises(BiposeError, match="skeleton coco has 17 joints, the model 15"):
        kind("coco").build(FeatureSpec(8, 32), FeatureSpec(15, 4), 15)
    with pytest.raises(BiposeError, match="one joint alone has no limbs"):
        kind({"name": "dot", "joints": ["dot"], "torso": ["dot", "dot"]}).build(
            FeatureSpec(8, 32), FeatureSpec(1, 4), 1
        )
    with pytest.raises(BiposeError, match="skeleton 'human' is unknown"):
        kind("human")


def module(refiner, decoder=None, skeleton="coco"):
    return PoseModule(
        TimmBackbone("test_resnet"), decoder or DeconvDecoder(8), HeatmapCodec(4, 1.5, skeleton=skeleton), HeatmapMSE(),
        refiner=refiner, joints=17, size=(64, 64),
    )  # fmt: skip


def test_a_refiner_of_another_skeleton_than_the_codec_is_refused():
    assert module(PictorialStructures("coco")).network.causal
    with pytest.raises(BiposeError, match=r"skeleton is h36m, the codec's coco: it would connect the wrong joints"):
        module(PictorialStructures("h36m"))
    assert module(PictorialStructures("h36m"), skeleton=None).network.refiner.skeleton.name == "h36m"


def test_maps_are_read_by_refiners_of_maps_alone():
    with pytest.raises(BiposeError, match="reads heatmaps, and the decoder predicts coordinates"):
        module(PictorialStructures("coco"), RegressionDecoder())
    refiner = PictorialStructures("coco")
    refiner.build(FeatureSpec(8, 32), FeatureSpec(17, 4), 17)
    with pytest.raises(BiposeError, match="reads heatmaps alone, not x, y"):
        refiner.step({"x": torch.zeros(1), "y": torch.zeros(1)}, torch.zeros(1), ())
