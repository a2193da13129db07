"""The command: help without heavy imports, one clear line for every mistake, and the right status."""

import errno
import os
import subprocess
import sys

import pytest

from bipose_lit.__main__ import main, make_parser

HEAVY = ("torch", "lightning", "numpy", "optuna", "rich", "wandb", "cv2", "jsonargparse", "yaml")


def bipose(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "bipose_lit", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["ablate", "--help"],
        ["report", "-h"],
        ["data", "make", "--help"],
        ["data", "--help"],
        ["doctor", "-h"],
        ["import-weights", "--help"],
    ],
)
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom bipose_lit.__main__ import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "usage: bipose" in done.stdout
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ablat"], "there is no 'ablat'; did you mean ablate?"),
        (["ablate", "m.yaml", "--worker", "3"], "unknown option --worker; did you mean --workers?"),
        (["ablate", "m.yaml", "--seeds", "x"], "'x' is neither a number of seeds"),
        (["ablate", "m.yaml", "--workers", "two"], "'two' is not a whole number above 0"),
        (["ablate", "m.yaml", "--workers", "0"], "'0' is not a whole number above 0"),
        (["data", "make", "--root", "x", "--workers", "-1"], "'-1' is not a whole number above 0"),
        (["data", "make", "--root", "x", "--frames", "0"], "'0' is not a whole number above 0"),
        (["ablate"], "the following arguments are required: MANIFEST"),
        (["data", "mak"], "did you mean make?"),
        (["data", "make", "--root", "x", "--clips", "train"], "is not like stage1=96"),
        ([], "required: COMMAND"),
    ],
)
def test_misuse_is_one_line_and_status_2(arguments, told, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("bipose: error: ")
    assert told in err
    assert err.count("\n") == 1
    assert "run-one" not in err


def test_failure_is_one_line_and_status_1(tmp_path):
    done = bipose("ablate", str(tmp_path / "none.yaml"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"bipose: error: manifest {tmp_path}/none.yaml not found; check the path")
    assert done.stderr.count("\n") == 1


def test_surprises_are_one_line_too(monkeypatch, capsys):
    def broken(args):
        raise RuntimeError("a\nb")

    monkeypatch.setattr("bipose_lit.__main__._doctor", broken)
    assert main(["doctor"]) == 1
    assert (
        capsys.readouterr().err == "bipose: error: unexpected RuntimeError: a (set BIPOSE_TRACEBACK=1 to see where)\n"
    )
    monkeypatch.setenv("BIPOSE_TRACEBACK", "1")
    assert main(["doctor"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_weights_of_what_is_no_run(tmp_path, capsys):
    assert main(["weights", str(tmp_path), "--out", str(tmp_path / "w.safetensors")]) == 1
    assert f"{tmp_path} is no finished run; give the folder" in capsys.readouterr().err


@pytest.mark.parametrize("leaf", sorted(make_parser()[1]))
def test_no_argument_hides_what_a_command_runs(leaf):
    parser = make_parser()[1][leaf]
    assert not {"run", "leaf"} & {action.dest for action in parser._actions}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x.npy"), "x.npy: the disk is full; free some space"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: the disk is full; free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: may not be read or written (Permission denied)"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/b"),
            "/a/b: no such file or directory; check",
        ),
        (TimeoutError("late"), "unexpected TimeoutError: late"),
    ],
)
def test_what_the_system_refuses_is_told(monkeypatch, capsys, error, told):
    def refused(args):
        raise error

    monkeypatch.setattr("bipose_lit.__main__._doctor", refused)
    assert main(["doctor"]) == 1
    line = capsys.readouterr().err
    assert told in line
    assert line.count("\n") == 1


def test_interrupt_is_130(monkeypatch, capsys):
    def stopped(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("bipose_lit.__main__._doctor", stopped)
    assert main(["doctor"]) == 130


def test_hidden_command_works_and_is_not_shown():
    assert "run-one" not in make_parser()[0].format_help()
    done = bipose("run-one", "nothing.json")
    assert done.returncode == 1
    assert "bipose: error: cannot read nothing.json" in done.stderr


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("0,3", [0, 3]), ("4,", [4])])
def test_seeds(text, value):
    assert make_parser()[0].parse_args(["ablate", "m", "--seeds", text]).seeds == value


def test_version():
    from bipose_lit import __version__

    assert bipose("--version").stdout == f"bipose {__version__}\n"
