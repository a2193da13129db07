"""Shared by all tests: one thread per process, deterministic property tests, the real samples' folder."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=30, database=None)
hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real samples; the test is skipped where BIPOSE_REAL_DATA is unset."""
    folder = os.environ.get("BIPOSE_REAL_DATA")
    if not folder:
        pytest.skip("BIPOSE_REAL_DATA is unset: no real samples on this machine")
    return Path(folder)
