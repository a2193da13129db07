"""Weights & Biases: the one place that knows it. result.json is the truth, W&B mirrors it.

Group = the manifest's or sweep's name. Runs of an ablation and of a sweep's comparison have job_type = the arm and are called
ARM/seedK; trials of a sweep have job_type "trial" and are called trialNNNN. A run's id is made of its name, arm, seed and
configuration, so whatever segments it was made in, whoever took it up, it is one run in W&B.

    names.py         ids, modes, names of metrics
    history_file.py  history.jsonl
    roles.py         what a run is within its sweep: trial, one of the best, baseline
    mirroring.py     results to W&B, afterwards, from the runs' own files (opening a W&B run takes a second: runs do not open one)
    content.py       what is written about a run
    service.py       opening runs, time limits, making sure that they arrived
    live.py          loggers for who wants to watch a `bipose fit`; logger.py is their class

Nothing is sent anywhere unless the user has logged in to W&B (or says WANDB_MODE=online). Importing this imports neither
wandb nor lightning.
"""

from bipose_lit.tracking.history_file import history
from bipose_lit.tracking.live import continuing, make_logger, wandb_logger
from bipose_lit.tracking.mirroring import mirror, mirror_all
from bipose_lit.tracking.names import MARKER, MODES, PROJECT, alias, resolve_mode, run_id

__all__ = [
    "MARKER",
    "MODES",
    "PROJECT",
    "alias",
    "continuing",
    "history",
    "make_logger",
    "mirror",
    "mirror_all",
    "resolve_mode",
    "run_id",
    "wandb_logger",
]
