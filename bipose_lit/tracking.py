"""Weights & Biases: the one place that knows it. result.json is the truth, W&B mirrors it.

Group = the manifest's name, job_type = the arm, name = ARM/seedK, and an id made of these and the configuration's hash, so a
resumed run continues the same W&B run. Opening a W&B run takes about a second, so runs do not open one: `mirror` writes
everything afterwards from the run's own files. `wandb_logger` is for who wants to watch a `bipose fit` live.

Nothing is sent anywhere unless the user has logged in to W&B (or says WANDB_MODE=online). Importing this file imports
neither wandb nor lightning.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import netrc
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from bipose_lit.store import CONFIG, HISTORY, RESULT, SPEC, RunResult, RunSpec, atomic, runs
from bipose_lit.types import BiposeError

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger
    from numpy.typing import NDArray

PROJECT = "bipose"
MARKER = "mirrored.json"
MODES = ("auto", "offline", "online", "disabled")


def run_id(spec: RunSpec) -> str:
    """The same for every start of the same run: 16 hexadecimal digits of name, arm, seed and configuration."""
    config = spec.config_hash or json.dumps(spec.config, sort_keys=True, default=str)
    return hashlib.sha256(json.dumps([spec.name, spec.arm, spec.seed, config]).encode()).hexdigest()[:16]


def resolve_mode(mode: str = "auto") -> str:
    """ "offline", "online" or "disabled": what `auto` means here.

    WANDB_MODE decides where it is set; else online for who has logged in (WANDB_API_KEY, or a netrc entry for the server),
    else offline.

    Raises:
        BiposeError: no such mode.
    """
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE", "") or ("online" if _logged_in() else "offline")
    mode = {"dryrun": "offline", "run": "online"}.get(mode, mode)
    if mode not in MODES or mode == "auto":
        raise BiposeError(f"W&B mode {mode!r} is unknown; set WANDB_MODE to offline, online or disabled")
    return mode


def alias(name: str) -> str:
    """A metric's protocol name as W&B likes it: the split stays a section, the rest becomes [a-z0-9_].

    "test/pck@0.1[clip,clip-box]/wrist" -> "test/pck_0_1_clip_clip_box_wrist".
    """
    from bipose_lit.metrics.summary import alias as plain

    section, slash, rest = name.partition("/")
    return f"{section}/{plain(rest)}" if slash else name


def make_logger(spec: RunSpec, mode: str = "auto", project: str = PROJECT, **options: Any) -> WandbLogger:
    """A Lightning logger for a live run; the W&B files land in the run's own folder, FOLDER/wandb.

    Args:
        spec: who the run is.
        mode: see `resolve_mode`; "disabled" gives a logger that drops everything.
        project: W&B project.
        options: further arguments of `wandb.init`.
    """
    from lightning.pytorch.loggers import WandbLogger

    mode = resolve_mode(mode)
    spec.folder.mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        name=f"{spec.arm}/seed{spec.seed}",
        save_dir=str(spec.folder),
        id=run_id(spec),
        project=project,
        offline=mode == "offline",
        group=spec.name,
        job_type=spec.arm,
        tags=list(spec.tags),
        config=dict(spec.config),
        mode=mode,
        settings=_settings(),
        **{"resume": "allow" if mode == "online" else None, **options},
    )


def wandb_logger(
    save_dir: str,
    name: str = "run",
    group: str | None = None,
    tags: list[str] | None = None,
    project: str = PROJECT,
    mode: str = "auto",
    log_model: bool = False,
) -> WandbLogger:
    """The logger of experiments/logger/wandb.yaml (`class_path: bipose_lit.tracking.wandb_logger`).

    Args:
        save_dir: folder of this run alone.
        name: the run's name in W&B; with `group` it also decides the run's id, so a resumed fit continues the same run.
        group: W&B group.
        tags: free words.
        project: W&B project.
        mode: auto (online for who is logged in, else offline), offline, online or disabled.
        log_model: upload checkpoints; online only.

    Raises:
        BiposeError: `log_model` without a connection.
    """
    mode = resolve_mode(mode)
    if log_model and mode != "online":
        raise BiposeError(f"log_model needs W&B online, but it is {mode}; run `wandb login` or set log_model: false")
    from lightning.pytorch.loggers import WandbLogger

    Path(save_dir).mkdir(parents=True, exist_ok=True)
    identity = [group, name, str(Path(save_dir).resolve())]
    return WandbLogger(
        name=name,
        save_dir=save_dir,
        id=hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16],
        project=project,
        offline=mode == "offline",
        log_model=log_model,
        group=group,
        tags=tags or [],
        mode=mode,
        settings=_settings(),
        resume="allow" if mode == "online" else None,
    )


def mirror(
    folder: Path,
    spec: RunSpec | None = None,
    *,
    mode: str = "auto",
    project: str = PROJECT,
    tags: Sequence[str] = (),
    images: Mapping[str, NDArray[Any]] | None = None,
    predictions: bool = False,
) -> Path | None:
    """Writes a finished run into W&B from its result.json, config.yaml and history.jsonl.

    Does nothing where the same result was mirrored before. A run that went on since is mirrored again under the same id;
    its older offline copy, unless it was synced, is removed, so that one run stays one run.

    Args:
        folder: the run's folder.
        spec: who the run is; default: spec.json, or else what result.json and config.yaml tell.
        mode: see `resolve_mode`.
        project: W&B project.
        tags: free words, added to the spec's.
        images: overlays to show, RGB uint8 by title.
        predictions: also hand over the prediction files, as an artifact.

    Returns:
        The run's W&B folder; None if W&B is disabled.

    Raises:
        BiposeError: no result in the folder, or W&B refuses.
    """
    mode = resolve_mode(mode)
    result = RunResult.load(folder)
    if result is None:
        raise BiposeError(f"{folder} has no {RESULT}: nothing to mirror; finish the run first")
    if mode == "disabled":
        return None
    spec = spec or _spec(folder, result)
    digest = _digest(folder, mode, project, (*spec.tags, *tags), images, predictions)
    marker = folder / "wandb" / MARKER
    before = _marker(marker)
    if before.get("digest") == digest and (folder / "wandb" / str(before.get("run"))).is_dir():
        return folder / "wandb" / str(before["run"])

    import wandb

    how: Any = mode
    with _data_in(folder / "wandb" / "artifacts"):
        try:
            run = wandb.init(
                project=project,
                group=spec.name,
                job_type=spec.arm,
                name=f"{spec.arm}/seed{spec.seed}",
                id=run_id(spec),
                resume="allow" if mode == "online" else None,
                tags=[*spec.tags, *tags],
                config=dict(spec.config),
                dir=str(folder),
                mode=how,
                reinit="create_new",
                settings=_settings(),
            )
            _fill(run, folder, result, images or {}, predictions)
            written = Path(run.settings.sync_dir)
            run.finish(exit_code=0 if result.status == "finished" else 1)
        except wandb.errors.Error as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BiposeError(f"W&B refused {folder}: {reason}; set WANDB_MODE=offline to mirror locally") from error
    old = folder / "wandb" / str(before.get("run", ""))
    if before.get("mode") == "offline" and old.is_dir() and old != written and not any(old.glob("*.synced")):
        shutil.rmtree(old)
    with atomic(marker) as handle:
        json.dump(
            {"digest": digest, "id": run_id(spec), "mode": mode, "run": written.name}, handle, indent=1, sort_keys=True
        )
    return written


def mirror_all(
    out: Path,
    mode: str = "auto",
    project: str = PROJECT,
    tags: Sequence[str] = (),
    images: Callable[[Path], Mapping[str, NDArray[Any]]] | None = None,
) -> list[Path]:
    """Mirrors every run below a folder in this one process; W&B's start-up is paid once, not once a run.

    Args:
        out: folder of runs.
        mode: as `mirror`.
        project: as `mirror`.
        tags: as `mirror`.
        images: overlays of a run, given its folder.

    Raises:
        BiposeError: as `mirror`.
    """
    if resolve_mode(mode) == "disabled":
        return []
    written = (
        mirror(folder, mode=mode, project=project, tags=tags, images=images(folder) if images else None)
        for folder, _ in runs(out)
    )
    return [path for path in written if path is not None]


def history(folder: Path) -> list[dict[str, Any]]:
    """Rows of history.jsonl, one per step in increasing order; where a resumed run logged a step again the later one counts.

    Raises:
        BiposeError: a line that is no JSON object with a step (the last line may be cut short by a kill).
    """
    path = folder / HISTORY
    if not path.is_file():
        return []
    rows: dict[int, dict[str, Any]] = {}
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.setdefault(int(row["step"]), {}).update(row)
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise BiposeError(
                f"{path}:{number} is no history row ({error}); delete the run's folder to repeat it"
            ) from error
    return [rows[step] for step in sorted(rows)]


def _fill(run: Any, folder: Path, result: RunResult, images: Mapping[str, Any], predictions: bool) -> None:
    import wandb

    names = sorted({*result.metrics, *(k for row in history(folder) for k in row if "/" in k)})
    run.config.update({"metric_names": {alias(n): n for n in names}, **_facts(result)}, allow_val_change=True)
    first = run.starting_step if run.resumed else 0
    last = first
    for row in history(folder):
        if row["step"] >= first:
            last = max(last, int(row["step"]))
            values = {alias(k) if "/" in k else k: v for k, v in row.items() if k != "step"}
            run.log(values, step=int(row["step"]))
    extra: dict[str, Any] = {}
    for title, rows, columns in _tables(folder, result):
        extra[title] = wandb.Table(columns=columns, data=rows)
    for title, image in images.items():
        extra[f"overlays/{title}"] = wandb.Image(image, caption=title)
    if extra:
        run.log(extra, step=last + 1)
    run.summary.update({alias(name): value for name, value in sorted(result.metrics.items())})
    run.summary.update({f"measured/{name}": value for name, value in sorted(result.measured.items())})
    run.summary.update({"status": result.status, **({"error": result.error} if result.error else {})})
    if predictions and result.predictions:
        artifact = wandb.Artifact(f"predictions-{run.id}", type="predictions")
        for name in sorted(result.predictions.values()):
            artifact.add_file(str(folder / name))
        run.log_artifact(artifact)


def _tables(folder: Path, result: RunResult) -> Iterable[tuple[str, list[list[Any]], list[str]]]:
    """Per-joint errors of every split that left predictions: title, rows, columns."""
    import numpy as np

    from bipose_lit.store import Predictions
    from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE

    for split, name in sorted(result.predictions.items()):
        if not (folder / name).is_file():
            continue
        data = Predictions.load(folder / name)
        error = np.linalg.norm(data.pred.astype(np.float64) - data.joints, axis=-1)
        rows: list[list[Any]] = []
        for k, joint in enumerate(data.joint_names):
            seen = data.visible[:, k]
            means = [
                float(error[mask, k].mean()) if mask.any() else None
                for mask in (seen != ABSENT, seen == VISIBLE, seen == OCCLUDED)
            ]
            rows.append([joint, int((seen != ABSENT).sum()), *means])
        yield f"{split}/joints", rows, ["joint", "labelled", "error_px", "visible_px", "occluded_px"]


def _facts(result: RunResult) -> dict[str, Any]:
    return {
        "facts": result.facts,
        "scorings": result.scorings,
        "commit": result.commit,
        "versions": result.versions,
        "config_hash": result.config_hash,
        "data_fingerprint": result.data_fingerprint,
        "weights_hash": result.weights_hash,
    }


@contextlib.contextmanager
def _data_in(folder: Path) -> Iterator[None]:
    """W&B keeps tables and artifacts that wait for a sync below its data folder, the home folder by default."""
    name = "WANDB_DATA_DIR"
    if os.environ.get(name):
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        del os.environ[name]


def _settings() -> Any:
    import wandb

    return wandb.Settings(
        silent=True,
        quiet=True,
        console="off",
        disable_code=True,
        disable_git=True,
        save_code=False,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
    )


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _spec(folder: Path, result: RunResult) -> RunSpec:
    if (folder / SPEC).is_file():
        return RunSpec.load(folder / SPEC)
    return RunSpec(result.name, result.arm, result.seed, folder, _config(folder), config_hash=result.config_hash)


def _config(folder: Path) -> dict[str, Any]:
    import yaml

    path = folder / CONFIG
    if not path.is_file():
        return {}
    try:
        data = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise BiposeError(
            f"{path} is no YAML ({str(error).splitlines()[0]}); delete the run's folder to repeat it"
        ) from error
    return data if isinstance(data, dict) else {}


def _digest(
    folder: Path, mode: str, project: str, tags: tuple[str, ...], images: Mapping[str, Any] | None, predictions: bool
) -> str:
    total = hashlib.sha256(json.dumps([mode, project, tags, predictions]).encode())
    for name in (RESULT, CONFIG, HISTORY):
        path = folder / name
        total.update(path.read_bytes() if path.is_file() else b"")
        total.update(b"\0")
    for title, image in sorted((images or {}).items()):
        total.update(title.encode() + image.tobytes())
    return total.hexdigest()


def _marker(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
