"""Signals: raised where there is nothing to save, kept while there is, obeyed at the second time, handed back afterwards."""

import os
import random
import signal
import threading
import time

import numpy as np
import pytest
import torch

from bipose_lit.callbacks.preemption import SAME, WARNINGS, Signals
from bipose_lit.callbacks.step_seeds import seed_step
from bipose_lit.types import BiposeError, Preempted


def warn(number):
    os.kill(os.getpid(), number)
    time.sleep(10)


@pytest.mark.parametrize("number", WARNINGS)
def test_outside_training_a_warning_ends_the_work(number):
    signals = Signals()
    before = signal.getsignal(number)
    with signals.watch(), pytest.raises(Preempted) as caught:
        warn(number)
    assert caught.value.code == 128 + number
    assert isinstance(caught.value, BiposeError)
    assert "\n" not in str(caught.value)
    assert number.name in str(caught.value)
    assert signal.getsignal(number) is before


def test_in_training_a_warning_is_kept():
    signals = Signals()
    with signals.watch():
        signals.deferred = True
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.01)
        assert signals.number == signal.SIGUSR1
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Lightning's handler would stand there
        signals.install()
        assert signal.getsignal(signal.SIGTERM) == signals._handle
    with signals.watch():
        assert signals.number == 0
        assert not signals.deferred


@pytest.mark.parametrize("second", WARNINGS)
def test_the_second_warning_ends_the_process(second):
    child = os.fork()
    if not child:
        try:
            signals = Signals()
            with signals.watch():
                signals.deferred = True
                os.kill(os.getpid(), signal.SIGTERM)
                end = time.monotonic() + 1.2 * SAME
                while time.monotonic() < end:
                    time.sleep(0.01)
                os.kill(os.getpid(), second)
                time.sleep(10)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -second


def test_a_warning_that_is_told_twice_in_a_row_is_one():
    """`timeout` tells a process and then its whole group; an engine that was told with its group tells its runs again."""
    signals = Signals()
    with signals.watch():
        signals.deferred = True
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
            os.kill(os.getpid(), number)
            time.sleep(0.02)
        assert signals.number == signal.SIGTERM


def test_a_thread_can_train_too():
    """Only the main thread may handle signals; elsewhere they are left alone."""
    seen = []

    def work():
        signals = Signals()
        with signals.watch():
            signals.install()
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def drawn(*at):
    seed_step(*at)
    return torch.rand(3).tolist(), random.random(), np.random.rand()  # noqa: NPY002


def test_what_is_drawn_in_a_step_depends_on_seed_step_batch_and_rank_alone():
    found = {}
    for at in [(s, n, b, r) for s in (0, 1) for n in (0, 7) for b in (0, 1) for r in (0, 1)]:
        found[at] = drawn(*at)
        torch.rand(11)
    assert len({str(numbers) for numbers in found.values()}) == len(found)
    assert all(drawn(*at) == numbers for at, numbers in found.items())
