"""The frame of a start: whatever ends it, nothing is left behind and the exit status says why."""

import os
import signal

import pytest

from bipose_lit.ablation.backend import Backend
from bipose_lit.ablation.start import starting
from bipose_lit.types import BiposeError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_it_in_good_order(number, capsys):
    handler = signal.getsignal(number)
    with starting(Backend()) as start:
        (start.scratch / "file").touch()
        os.kill(os.getpid(), number)
        pytest.fail("it went on")
    assert start.code == 128 + number
    assert not start.scratch.exists()
    assert signal.getsignal(number) is handler
    assert f"interrupted ({number.name}); the same command goes on where it stopped" in capsys.readouterr().err


def test_an_error_passes_through():
    with pytest.raises(BiposeError, match="broken"), starting(Backend()) as start:
        raise BiposeError("broken")
    assert not start.scratch.exists()
