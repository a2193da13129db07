"""Ids, modes and names."""

from __future__ import annotations

import configparser
import hashlib
import json
import netrc
import os
from pathlib import Path
from urllib.parse import urlparse

from bipose_lit.store import RunSpec
from bipose_lit.types import BiposeError

PROJECT = "bipose"
MARKER = "mirrored.json"
MODES = ("auto", "offline", "online", "disabled")
PUBLIC = ("https://api.forge.coreweave.com", "https://api.wandb.ai")
"""Addresses of the public service: today's, and the one it had before, under which older keys are kept."""


def run_id(spec: RunSpec) -> str:
    """The same for every start of the same run: 16 hexadecimal digits of name, arm, seed and configuration."""
    config = spec.config_hash or json.dumps(spec.config, sort_keys=True, default=str)
    return short_hash([spec.name, spec.arm, spec.seed, config])


def short_hash(value: object) -> str:
    """16 hexadecimal digits of plain data."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


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


def server() -> str:
    """The address of the service: WANDB_BASE_URL, or what `wandb login --host` wrote, or the public one."""
    return os.environ.get("WANDB_BASE_URL") or _chosen_server() or PUBLIC[0]


def _chosen_server() -> str:
    folder = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    reader = configparser.ConfigParser()
    try:
        reader.read(Path(folder).expanduser() / "settings")
        return reader.get("default", "base_url", fallback="")
    except (OSError, configparser.Error):
        return ""


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    address = server().rstrip("/")
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        known = netrc.netrc(str(path))
        return any(known.authenticators(urlparse(a).netloc) for a in (PUBLIC if address in PUBLIC else (address,)))
    except (OSError, netrc.NetrcParseError):
        return False
