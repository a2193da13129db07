"""The project's own files agree with one another."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_equals_pyproject(project: dict) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == project["dependencies"] + project["optional-dependencies"]["dev"]
    assert any(str(d).startswith("python>=3.11") for d in environment["dependencies"])


def test_lock_has_hashes_and_no_index(project: dict) -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    pinned = re.findall(
        r"^([a-z0-9-]+)(?:\[[^]]*\])?==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.M
    )
    names = re.findall(r"^[a-z0-9][^=\s]*==", text, re.M)
    assert len(pinned) == len(names) > 50
    locked = {name for name, _, _ in pinned}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    missing = {re.split(r"[\[<>=!]", d)[0].lower().replace("_", "-") for d in wanted} - locked
    assert not missing


def test_every_bound_has_its_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text().split("[project.scripts]")[0].splitlines()
    bounds = [line for line in lines if re.match(r'^  "[a-zA-Z]', line)]
    assert len(bounds) > 25
    assert [line for line in bounds if "#" not in line] == []


def test_compromised_lightning_is_excluded(project: dict) -> None:
    lightning = next(d for d in project["dependencies"] if d.startswith("lightning"))
    assert "!=2.6.2" in lightning
    assert "!=2.6.3" in lightning


def test_makefile_lists_its_targets() -> None:
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = {line.split()[0] for line in text.splitlines() if line.strip()}
    assert {"setup", "ablation", "test", "lint", "types", "notebooks", "bench", "clean"} <= listed


def test_importing_the_package_is_light() -> None:
    code = "import sys, bipose_lit; print(sorted({'torch', 'numpy', 'lightning', 'cv2'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_no_file_is_too_long() -> None:
    long = {str(p): n for p in (ROOT / "bipose_lit").rglob("*.py") if (n := len(p.read_text().splitlines())) > 420}
    assert not long
