"""No leak by construction: what stage 1 trains on, what the ablation uses, and the ablation's splits are disjoint."""

import inspect
import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from bipose_lit.__main__ import make_parser
from bipose_lit.datasets.synthetic.assay import SPLITS, ClipPlan, plan_clips
from bipose_lit.datasets.synthetic.looks import Look
from bipose_lit.datasets.synthetic.make import make_dataset
from bipose_lit.datasets.synthetic.motions import MOTION_SPLITS, parts_of

ROOT = Path(__file__).parents[3]
PURPOSES = ("scene", "look", "body", "motion", "camera", "occluders", "imaging", "render")
DEFAULTS = {k: p.default for k, p in inspect.signature(make_dataset).parameters.items()}


def recipe(root: str) -> dict:
    """Options of the Makefile's own command for a folder, read by the command's own parser."""
    (line,) = re.findall(rf"bipose (data make --root {root} .*)", (ROOT / "Makefile").read_text())
    parser, _ = make_parser()
    return {k: v for k, v in vars(parser.parse_args(line.split())).items() if v is not None}


def plans(options: dict) -> list[ClipPlan]:
    each = options.get("clips_per_cluster", DEFAULTS["clips_per_cluster"])
    return plan_clips(options["clips"], MOTION_SPLITS, seed(options), each)


def seed(options: dict) -> int:
    return int(options.get("seed", DEFAULTS["seed"]))


STAGE1 = recipe("data/synthetic-stage1")
ABLATION = yaml.safe_load((ROOT / "experiments" / "ablations" / "temporal.yaml").read_text())["make"]
PLANS = {"stage1": plans(STAGE1), "ablation": plans(ABLATION)}
SEEDS = {"stage1": seed(STAGE1), "ablation": seed(ABLATION)}
BY_SPLIT = {
    split: [(which, p) for which in PLANS for p in PLANS[which] if p.split == split]
    for split in ("stage1", "train", "val", "test")
}
PAIRS = list(combinations(BY_SPLIT, 2))


def streams(split: str, purpose: str) -> set[tuple]:
    """What the generators of one purpose are made from: the set's seed and the clip's spawn key."""
    found = set()
    for which, plan in BY_SPLIT[split]:
        sequence = plan.rng(SEEDS[which], purpose).bit_generator.seed_seq
        found.add((sequence.entropy, sequence.spawn_key))
    return found


def test_the_recipes_are_those_that_are_run() -> None:
    assert STAGE1["clips"] == {"stage1": 2000}
    assert (STAGE1["frames"], STAGE1["clips_per_cluster"], seed(STAGE1)) == (16, 1, 0)
    assert {s: len(p) for s, p in BY_SPLIT.items()} == {**STAGE1["clips"], **ABLATION["clips"]}
    assert set(BY_SPLIT) == set(SPLITS)
    assert len({p.cluster for p in PLANS["stage1"]}) == STAGE1["clips"]["stage1"]


def test_stage1_is_scored_on_the_very_set_of_the_ablation() -> None:
    """`make stage1` may come first; `make ablation` must find the same set then, not refuse it."""
    made = {**DEFAULTS, **recipe("data/synthetic")}
    for name in ("clips", "frames", "fps", "size", "seed", "clips_per_cluster", "pixels"):
        assert made[name] == {**DEFAULTS, **ABLATION}[name], name
    assert set(made["formats"]) == set(ABLATION["formats"])


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_splits_share_no_cluster(one: str, two: str) -> None:
    assert not {p.cluster for _, p in BY_SPLIT[one]} & {p.cluster for _, p in BY_SPLIT[two]}


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_splits_share_no_random_stream(one: str, two: str, purpose: str) -> None:
    """Scene, person, texture, motion, occluders: all are drawn from generators that no other split has."""
    first, second = streams(one, purpose), streams(two, purpose)
    assert not first & second
    per_clip = purpose not in ("scene", "look", "body")
    units = len(BY_SPLIT[one]) if per_clip else len({p.cluster for _, p in BY_SPLIT[one]})
    assert len(first) == units  # nor do two clips, or two clusters, of one split


def test_stage1_shares_no_plain_motion_with_the_ablation() -> None:
    def motions(plans: list[ClipPlan]) -> set[str]:
        return {part for plan in plans for part in parts_of(plan.kind)}

    first, second = motions(PLANS["stage1"]), motions(PLANS["ablation"])
    assert not first & second
    assert len(first) >= 5
    assert len(second) >= 8


def test_some_whole_motions_are_only_in_the_test_split() -> None:
    seen = {part for split in ("stage1", "train", "val") for _, p in BY_SPLIT[split] for part in parts_of(p.kind)}
    only = {part for _, p in BY_SPLIT["test"] for part in parts_of(p.kind)} - seen
    assert len(only) >= 2, only
    held = [p for _, p in BY_SPLIT["test"] if set(parts_of(p.kind)) & only]
    assert len(held) >= len(BY_SPLIT["test"]) / 4


def test_people_and_their_textures_are_different_ones() -> None:
    """look_id is a person's identity and the seed of all clothing textures; every fourth cluster is drawn."""
    ids: dict[int, tuple[str, str]] = {}
    for split, members in BY_SPLIT.items():
        first = {plan.cluster: (which, plan) for which, plan in members}
        for cluster, (which, plan) in list(first.items())[::4]:
            look = Look.sample(plan.rng(SEEDS[which], "look")).look_id
            assert look not in ids, f"{split} {cluster} looks like {ids.get(look)}"
            ids[look] = (split, cluster)
    assert len(ids) > 300
