"""Results to W&B, afterwards, from the runs' own files.

What is there is not sent again: a marker beside the run says what W&B holds, and is written only when it has arrived. A
service out of reach therefore costs nothing but time: the next mirroring sends what is missing, under the same ids.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bipose_lit.store import CONFIG, HISTORY, RESULT, SPEC, RunResult, RunSpec, atomic
from bipose_lit.tracking.content import ENDED, fill, gather
from bipose_lit.tracking.names import MARKER, PROJECT, resolve_mode, run_id, server
from bipose_lit.tracking.roles import Roles
from bipose_lit.tracking.service import TOKEN, UnreachableError, arrived, data_in, one_line, settings
from bipose_lit.types import BiposeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Images = Mapping[str, NDArray[Any]]


def mirror(
    folder: Path,
    spec: RunSpec | None = None,
    *,
    mode: str = "auto",
    project: str = PROJECT,
    tags: Sequence[str] = (),
    images: Mapping[str, NDArray[Any]] | None = None,
    predictions: bool | None = None,
) -> Path | None:
    """Writes a finished run into W&B from its result.json, config.yaml and history.jsonl.

    Does nothing where the same result was mirrored before. A run that went on since is mirrored again under the same id:
    what W&B holds of it stays, and what is new follows. An older offline copy, unless it was synced, is replaced, so that one
    run stays one run.

    Args:
        folder: the run's folder.
        spec: who the run is; default: spec.json, or else what result.json and config.yaml tell.
        mode: see `resolve_mode`.
        project: W&B project.
        tags: free words, added to the spec's.
        images: overlays to show, RGB uint8 by title.
        predictions: also hand over the prediction files, as an artifact `predictions-ID`, about 230 bytes for a person in a
            frame with 15 joints; what waits offline for a sync lies on the disk twice. None: those of the best trials, the
            retrained ones and the baselines of a sweep; its other trials then come without tables, too.

    Returns:
        The run's W&B folder; None if W&B is disabled.

    Raises:
        BiposeError: no result in the folder, or W&B does not take it.
    """
    mode = resolve_mode(mode)
    if mode != "disabled" and RunResult.load(folder) is None and spec is None:
        raise BiposeError(f"{folder} has no {RESULT}: nothing to mirror; finish the run first")
    if mode == "disabled":
        return None
    stamp = {title: hashlib.sha256(image.tobytes()).hexdigest() for title, image in (images or {}).items()}
    sender = _Sender(mode, project, tuple(tags), predictions)
    sent = sender.send(folder, spec, (lambda: images or {}), stamp)
    if sender.settle([sent]):
        raise UnreachableError(_lost(1))
    return sent.written


def mirror_all(
    out: Path,
    mode: str = "auto",
    project: str = PROJECT,
    tags: Sequence[str] = (),
    images: Callable[[Path], Mapping[str, NDArray[Any]]] | None = None,
    predictions: bool | None = None,
) -> list[Path]:
    """Mirrors every run below a folder in this one process; W&B's start-up is paid once, not once a run.

    Trials of a sweep that was stopped while they ran are mirrored as far as they came, and go on later under the same id; what
    was taken over from another trial is that one's run. A run whose own files are damaged costs nobody else; a service that
    does not answer ends the attempt at once.

    Args:
        out: folder of runs.
        mode: as `mirror`.
        project: as `mirror`.
        tags: as `mirror`.
        images: overlays of a run, given its folder; asked only for what has to be sent.
        predictions: as `mirror`.

    Raises:
        BiposeError: as `mirror`, after everything else was mirrored where it can be.
    """
    mode = resolve_mode(mode)
    if mode == "disabled":
        return []
    sender = _Sender(mode, project, tuple(tags), predictions)
    folders = [path.parent for path in sorted(out.rglob(RESULT))] + sender.roles.without_result(out)
    sent: list[_Sent] = []
    problems: list[BiposeError] = []
    for folder in folders:
        try:
            sent.append(sender.send(folder, None, (lambda f=folder: images(f)) if images else dict))  # type: ignore[misc]
        except UnreachableError as error:
            problems.insert(0, error)
            break
        except BiposeError as error:
            problems.append(error)
    lost = sender.settle(sent)
    if lost and not any(isinstance(p, UnreachableError) for p in problems):
        problems.insert(0, UnreachableError(_lost(len(lost))))
    if problems:
        done = len(sent) - len(lost)
        raise BiposeError(f"{problems[0]} ({done} of {len(folders)} runs are mirrored)")
    return [s.written for s in sent]


def _lost(count: int) -> str:
    what = "a run" if count == 1 else f"{count} runs"
    return f"W&B at {server()} did not confirm {what}; nothing is lost: the next mirroring catches up, or set WANDB_MODE=offline"


@dataclass(frozen=True)
class _Sent:
    """A run that was handed over, or that W&B held before.

    Attributes:
        folder: of the run.
        written: its W&B folder.
        marker: what is noted once it has arrived; empty if it was there before.
        path: entity/project/id.
        old: the W&B folders that this one replaces.
    """

    folder: Path
    written: Path
    marker: Mapping[str, Any]
    path: str = ""
    old: tuple[Path, ...] = ()


class _Sender:
    def __init__(self, mode: str, project: str, tags: tuple[str, ...], predictions: bool | None) -> None:
        self.mode, self.project, self.tags, self.predictions = mode, project, tags, predictions
        self.roles = Roles()

    def send(
        self,
        folder: Path,
        spec: RunSpec | None,
        images: Callable[[], Mapping[str, Any]],
        stamp: Mapping[str, str] | None = None,
    ) -> _Sent:
        """Hands a run over unless W&B holds it as it is.

        Raises:
            UnreachableError: W&B does not take it.
            BiposeError: its files are damaged.
        """
        result = RunResult.load(folder)
        spec = spec or _spec(folder, result)
        role = self.roles.of(folder, spec, result)
        if result is None:
            status = "failed" if role.state == "failed" else "running"
            result = RunResult(spec.name, spec.arm, spec.seed, status, config_hash=spec.config_hash)
        predictions = role.marked if self.predictions is None else self.predictions
        tags = tuple(dict.fromkeys((*spec.tags, *self.tags, *role.tags)))
        content = _digest(folder, [predictions, dict(stamp or {})])
        told = [self.mode, self.project, tags, content, role.job_type, role.name, role.state, role.config, role.summary]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
        base = folder / "wandb"
        before = _marker(base / MARKER)
        earlier = base / str(before.get("run", ""))
        if before.get("digest") == digest and earlier.is_dir():
            return _Sent(folder, earlier, {})
        # Rows that W&B holds, or will hold by a sync that was begun, are not sent again; an offline copy is replaced as a whole.
        kept = before.get("mode") == "online" or (bool(before) and any(earlier.glob("*.synced")))
        first = int(before.get("next", 0)) if kept else 0
        extras = not (kept and before.get("content") == content)

        # Everything is read before W&B hears of the run: a damaged file leaves nothing half told.
        gathered = gather(folder, result, tables=predictions or not role.trial)
        shown = images() if extras else None

        import wandb

        there = set(base.glob(f"*-{run_id(spec)}"))
        how: Any = self.mode
        run: Any = None
        with data_in(base / "artifacts"), one_line(folder):
            try:
                run = wandb.init(
                    project=self.project,
                    group=spec.name,
                    job_type=role.job_type,
                    name=role.name,
                    id=run_id(spec),
                    resume="allow",
                    tags=list(tags),
                    config=dict(spec.config),
                    dir=str(folder),
                    mode=how,
                    reinit="create_new",
                    settings=settings(bounded=True),
                )
                if self.mode == "online":
                    first = run.starting_step if run.resumed else 0
                    shown = images() if shown is None and not run.resumed else shown
                free = fill(run, gathered, role, first, shown, predictions)
                run.summary.update({TOKEN: digest})
                written, path = Path(run.settings.sync_dir), run.path
                if result.status == "running":
                    run.mark_preempting()
                run.finish(exit_code=0 if result.status in ENDED else 1)
            except BaseException:
                _give_up(run)
                for left in set(base.glob(f"*-{run_id(spec)}")) - there:
                    shutil.rmtree(left, ignore_errors=True)  # all of it is sent anew the next time
                raise
        marker = {
            "digest": digest,
            "content": content if result.status in ENDED else "",
            "id": run_id(spec),
            "mode": self.mode,
            "run": written.name,
            "next": free,
        }
        old = (earlier,) if before.get("mode") == "offline" and not kept and earlier not in (base, written) else ()
        return _Sent(folder, written, marker, path, old)

    def settle(self, sent: Sequence[_Sent]) -> list[_Sent]:
        """Notes what has arrived; returns what has not."""
        new = [s for s in sent if s.marker]
        there = {s.path for s in new}
        if self.mode == "online" and new:
            there = arrived({s.path: s.marker["digest"] for s in new})
        for s in new:
            if s.path not in there:
                shutil.rmtree(s.written, ignore_errors=True)
                continue
            with atomic(s.folder / "wandb" / MARKER) as handle:
                json.dump(dict(s.marker), handle, indent=1, sort_keys=True)
            for folder in s.old:
                shutil.rmtree(folder, ignore_errors=True)
        return [s for s in new if s.path not in there]


def _give_up(run: Any) -> None:
    """Ends what W&B still tries in the background."""
    import wandb

    if run is not None:
        with contextlib.suppress(wandb.errors.Error, OSError, ValueError):
            run.finish(exit_code=1)
    wandb.teardown(1)


def _spec(folder: Path, result: RunResult | None) -> RunSpec:
    if (folder / SPEC).is_file() or result is None:
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


def _digest(folder: Path, told: Any) -> str:
    """Of everything that the files say about a run."""
    total = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in (RESULT, CONFIG, HISTORY):
        path = folder / name
        total.update(path.read_bytes() if path.is_file() else b"")
        total.update(b"\0")
    return total.hexdigest()


def _marker(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
