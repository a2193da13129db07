"""Spaces: conditions, counting, listing; what a study keeps of a point comes back as the point."""

import itertools
import math

import optuna
import pytest

from bipose_lit.sweep.space import FIRST_SEED, Branch, Choice, Range, Space, key_of, layers, nested, seeds_of

ENTRIES = {
    "depth": Range(1, 3, whole=True, when={"head": ("b",), "size": (16,)}),  # stands before what it depends on
    "head": Branch({"a": (), "b": ({"x": 1},)}),
    "size": Choice((8, 16, [1, 2]), {"head": ("b",)}),
    "flag": Choice((True, 1, None, "1")),
}


def brute_force():
    """All points, by what the conditions say in words."""
    found = []
    for head, flag in itertools.product("ab", (True, 1, None, "1")):
        if head == "a":
            found.append({"head": head, "flag": flag})
            continue
        for size in (8, 16, [1, 2]):
            depths = [{"depth": d} for d in (1, 2, 3)] if size == 16 else [{}]
            found += [{"head": head, "flag": flag, "size": size, **d} for d in depths]
    return found


def test_points_equal_brute_force():
    space = Space(ENTRIES)
    points = list(space.points())
    assert sorted(map(key_of, points)) == sorted(map(key_of, brute_force()))
    assert len({key_of(p) for p in points}) == len(points) == space.count() == 4 + 4 * 5


def test_count_of_ranges():
    assert Space({"a": Range(0.0, 1.0, step=0.25), "b": Range(1, 9, whole=True, step=2)}).count() == 25
    assert math.isinf(Space({"a": Range(0.0, 1.0), "b": Choice((1, 2))}).count())
    assert Space({"a": Range(0.0, 1.0, step=0.1)}).entries["a"].listed()[3] == 0.3


def test_a_study_gives_points_back():
    space = Space(ENTRIES | {"lr": Range(1e-4, 1.0, log=True), "p": Range(0.0, 1.0, step=0.1)})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    kinds = set()
    for _ in range(60):
        trial = study.ask()
        point = space.suggest(trial)
        assert all(space.active(name, point) == (name in point) for name in space.entries)
        assert list(map(repr, space.point(trial.params).items())) == list(map(repr, point.items()))
        assert round(point["p"] * 10, 9) == round(point["p"] * 10)
        kinds.add((point["head"], repr(point.get("size")), "depth" in point))
    assert kinds == {("a", "None", False), ("b", "8", False), ("b", "16", True), ("b", "[1, 2]", False)}


def test_seeds_follow_from_parameters_alone():
    point = {"lr": 0.1, "head": "lstm"}
    assert seeds_of(point, 3) == seeds_of(dict(reversed(point.items())), 3)
    assert seeds_of(point, 3)[:2] == seeds_of(point, 2)
    assert seeds_of(point, 1) != seeds_of({**point, "lr": 0.2}, 1)
    many = seeds_of(point, 50)
    assert len(set(many)) == 50
    assert all(FIRST_SEED <= s < 2**31 for s in many), "seeds of retrained runs are small"


def test_nested():
    assert nested({"a.b.c": 1, "a.b.d": [2], "e": None}) == {"a": {"b": {"c": 1, "d": [2]}}, "e": None}


def test_an_option_and_what_is_inside_it_lie_in_two_layers():
    options = {"a.b.c.d": 1, "a.b": "x", "a.b.c": None, "e.f": 2}
    assert layers(options) == (
        {"a": {"b": "x"}, "e": {"f": 2}},
        {"a": {"b": {"c": None}}},
        {"a": {"b": {"c": {"d": 1}}}},
    )
    assert layers({"a.b": 1, "a.bc": 2}) == ({"a": {"b": 1, "bc": 2}},)
    assert layers({}) == ()


def test_what_a_sampler_draws_is_what_is_listed():
    """0.1 + 2 * 0.1 is 0.30000000000000004 to a sampler: the same point twice, were it not put right."""
    space = Space({"p": Range(0.1, 0.9, step=0.1)})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = {key_of(space.suggest(study.ask())) for _ in range(200)}
    assert drawn == {key_of(p) for p in space.points()}
    assert len(drawn) == 9


def test_long_ranges_are_counted_without_a_list():
    assert Space({"a": Range(1, 10**15, whole=True, step=3)}).count() == len(range(1, 10**15 + 1, 3))
    assert Space({"a": Range(0.0, 1e9, step=1e-6)}).count() == 1e15 + 1
    assert Space({"a": Range(1, 10**15, whole=True)}).endless() == []


def test_circles_are_refused():
    with pytest.raises(ValueError, match="circle"):
        Space({"a": Choice((1,), {"b": (1,)}), "b": Choice((1,), {"a": (1,)})})
