"""Ctrl-C: the first is noted, the second raises, and everything is as before afterwards."""

from __future__ import annotations

import signal
import threading

import pytest

from tinynet.training.interruptions import Interrupted, deferred_interrupt


def test_the_first_is_noted_and_the_second_raises(capsys):
    with deferred_interrupt() as interrupt:
        assert not interrupt.is_set()
        signal.raise_signal(signal.SIGINT)
        assert interrupt.is_set()
        assert "Ctrl-C again to end at once" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("presses", [0, 1])
def test_afterwards_ctrl_c_is_what_it_was(presses):
    with deferred_interrupt():
        for _ in range(presses):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_another_handler_is_left_alone():
    presses = []
    before = signal.signal(signal.SIGINT, lambda *_: presses.append(1))
    try:
        with deferred_interrupt() as interrupt:
            signal.raise_signal(signal.SIGINT)
        assert presses == [1]
        assert not interrupt.is_set()
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_a_thread_nothing_is_installed():
    seen = []

    def run():
        with deferred_interrupt() as interrupt:
            seen.append((signal.getsignal(signal.SIGINT), interrupt.is_set()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(signal.default_int_handler, False)]


def test_the_error_says_how_to_go_on():
    error = Interrupted(3, 17, {}, "night.safetensors")
    assert isinstance(error, KeyboardInterrupt)
    assert str(error) == (
        "fit: interrupted before epoch 3, batch 17; saved to night.safetensors; to go on, make the same call again"
    )
    assert "in this error's `params`" in str(Interrupted(3, 17, {}, None))
