"""Spectra: figures of motions whose answers are known, and ours beside captured walking."""

from pathlib import Path

import numpy as np
import pytest

from bipose_lit.datasets.synthetic.body import INDEX, Motion, Proportions, forward_kinematics, rest_offsets, rotation_y
from bipose_lit.datasets.synthetic.bvh import clips_in, motion_from_bvh
from bipose_lit.datasets.synthetic.motions import make_motion
from bipose_lit.datasets.synthetic.spectra import BANDS, GROUPS, band_names, compare, format_table, speed_spectrum
from bipose_lit.types import BiposeError


def gliding(speed: float, fps: float = 25.0, seconds: float = 8.0, stature: float = 1.7, wave: tuple[float, float] = (0.0, 1.0),
            spin: float = 0.0) -> Motion:  # fmt: skip
    """The rest pose on wheels, whose pelvis also oscillates by wave = (amplitude, Hz); the left wrist does so locally."""
    person = Proportions(stature=stature)
    t = np.arange(int(seconds * fps) + 1) / fps
    root = rest_offsets(person)[:1] + np.stack([0 * t, 0 * t, speed * t], axis=1)
    rotations = np.tile(np.eye(3), (len(t), 22, 1, 1))
    rotations[:, 0] = rotation_y(spin * t)
    positions, frames = forward_kinematics(root, rotations, person)
    positions[:, INDEX["left_wrist"], 1] += wave[0] * np.sin(2 * np.pi * wave[1] * t)
    return Motion(fps, positions, frames, person, "glide")


def test_speeds_are_in_statures_and_free_of_travel_and_turning() -> None:
    figures = speed_spectrum([gliding(1.7, spin=0.8)])
    assert figures["pelvis"].median == pytest.approx(1.0, rel=1e-6)
    assert figures["pelvis"].p99 == pytest.approx(1.0, rel=1e-6)
    for group in set(GROUPS) - {"pelvis"}:
        assert figures[group].p99 < 1e-9
    assert speed_spectrum([gliding(2 * 1.7, stature=3.4)])["pelvis"].median == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(("hertz", "band"), [(0.75, 1), (1.5, 2), (3.0, 3), (6.0, 4), (10.0, 5)])
def test_a_sine_has_its_power_in_its_band_and_its_acceleration(hertz: float, band: int) -> None:
    amplitude = 0.1 * 1.7
    figures = speed_spectrum([gliding(0.0, wave=(amplitude, hertz))])["arms"]
    assert figures.bands[band] > 0.6
    assert sum(figures.bands) == pytest.approx(1.0)
    # second differences of a sine, sampled at 25 Hz: the amplitude times (2 sin(pi f / 25))^2 * 25^2; one joint of four moves
    expected = 0.1 / np.sqrt(2) * (2 * np.sin(np.pi * hertz / 25)) ** 2 * 25**2 / np.sqrt(4)
    assert figures.acceleration == pytest.approx(expected, rel=0.05)


def test_frame_rates_are_brought_to_25() -> None:
    a = speed_spectrum([gliding(1.0, fps=120.0, wave=(0.1, 1.5))])
    b = speed_spectrum([gliding(1.0, fps=25.0, wave=(0.1, 1.5))])
    for group in GROUPS:
        assert a[group].median == pytest.approx(b[group].median, rel=0.02, abs=1e-9)
        assert a[group].bands == pytest.approx(b[group].bands, abs=0.02)


def test_the_table_sets_ours_beside_captured() -> None:
    ours, captured = speed_spectrum([gliding(1.7)]), speed_spectrum([gliding(3.4)])
    rows = compare(ours, captured)
    assert len(rows) == len(GROUPS) * (4 + len(BANDS) - 1)
    assert rows[0].ratio == pytest.approx(0.5)
    assert np.isnan(next(r for r in rows if r.group == "head" and r.figure == "0-0.5 Hz").ratio) or rows[0].captured > 0
    table = format_table(rows)
    assert table.splitlines()[0].split()[:5] == ["group", "figure", "ours", "captured", "ratio"]
    assert len(table.splitlines()) == len(rows) + 1
    assert band_names()[-1] == ">8 Hz"


def test_short_and_missing_motions_are_told() -> None:
    with pytest.raises(BiposeError, match="needs 2 s"):
        speed_spectrum([gliding(1.0, seconds=1.0)])
    with pytest.raises(BiposeError, match="no motions"):
        speed_spectrum([])


@pytest.mark.real_data
def test_our_walk_moves_like_captured_walks(real_data: Path) -> None:
    folder = real_data / "mocap" / "cmu"
    captured = []
    for name in ("02_01.bvh", "cmu_12_01_walk.bvh"):
        captured += [
            motion_from_bvh(folder / name, 25.0, 70, start, Proportions())
            for start in clips_in(folder / name, 70, 25.0)
        ]
    ours = [make_motion("walk", 75, 25.0, np.random.default_rng(seed)) for seed in range(24)]
    rows = {(row.group, row.figure): row for row in compare(speed_spectrum(ours), speed_spectrum(captured))}
    for group in GROUPS:
        assert 0.6 < rows[group, "median"].ratio < 1.6
        assert 0.5 < rows[group, "p90"].ratio < 1.8
        assert 0.25 < rows[group, "acceleration"].ratio < 2.0
        slow = sum(rows[group, band].ours for band in band_names()[:3])
        assert slow == pytest.approx(sum(rows[group, band].captured for band in band_names()[:3]), abs=0.08)
