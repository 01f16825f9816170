"""Each call of the operating system that writes a file fails in turn: the old file or the new one is there, whole.

As SQLite tests its own: https://www.sqlite.org/testing.html#i_o_error_testing
"""

from __future__ import annotations

import builtins
import errno
import itertools
import os
from functools import partial

import numpy as np
import pytest

import tinynet as tn
from tinynet.files import atomic
from tinynet.files.atomic import write_atomically
from tinynet.files.container import read, write

OLD, NEW = b"old" * 1000, [b"new" * 1000, memoryview(b"er" * 1000), b""]
FAULTS = (
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EIO, "Input/output error"),
    KeyboardInterrupt(),
)

CALLS = {"stat", "listdir", "kill", "open", "fsync", "close", "chmod", "replace", "unlink"}
"""What asks the operating system for something; `os.path` and the rest of `os` only compute."""


class Faulty:
    """Stands for the operating system, and fails at the n-th call.

    `os` and `open` of `tinynet.files.atomic` go through it, and whatever is done with an open file. A torn write leaves
    half of its bytes. With `crashed`, all later calls fail too: nothing tidies up after a crash.
    """

    def __init__(self, n: int, error: BaseException, crashed: bool = False) -> None:
        self.n, self.error, self.crashed = n, error, crashed
        self.calls: list[str] = []

    def call(self, name, function, *args, **kwargs):
        self.calls.append(name)
        if len(self.calls) == self.n or (self.crashed and len(self.calls) > self.n):
            if name == "writelines":
                data = b"".join(*args)
                function([data[: len(data) // 2]])
            if name == "close":  # frees the descriptor even where it fails
                function(*args)
            raise self.error
        return function(*args, **kwargs)

    def __getattr__(self, name):
        thing = getattr(os, name)
        return partial(self.call, name, thing) if name in CALLS else thing

    def open_file(self, *args, **kwargs):
        return Opened(self, self.call("open", builtins.open, *args, **kwargs))


class Opened:
    """A file whose calls go through a `Faulty`."""

    def __init__(self, faulty, file):
        self.faulty, self.file = faulty, file

    def __getattr__(self, name):
        return lambda *args: self.faulty.call(name, getattr(self.file, name), *args)

    def fileno(self):
        return self.file.fileno()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.faulty.call("close", self.file.close)


@pytest.fixture(autouse=True)
def this_process_is_dead(monkeypatch):
    """Let what a crash left behind be found by the next write."""
    monkeypatch.setattr(atomic, "_is_alive", lambda process: process != os.getpid())


def descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def attempt(monkeypatch, faulty, act):
    """Do `act` where the operating system is `faulty`; return what it raised."""
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "os", faulty)
        patch.setattr(atomic, "open", faulty.open_file, raising=False)
        try:
            act()
        except BaseException as error:
            return error
    return None


def count(monkeypatch, act):
    faulty = Faulty(0, OSError())
    assert attempt(monkeypatch, faulty, act) is None
    assert {"stat", "open", "writelines", "flush", "fsync", "close", "replace"} <= set(faulty.calls)
    assert (
        faulty.calls.index("fsync")
        < faulty.calls.index("replace")
        < len(faulty.calls) - faulty.calls[::-1].index("fsync") - 1
    )
    return len(faulty.calls)


@pytest.mark.parametrize("crashed", [False, True], ids=["fails", "crashes"])
@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__ + str(getattr(error, "errno", "")))
@pytest.mark.parametrize("before", [OLD, None], ids=["replaced", "new"])
def test_a_fault_at_any_call_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch, error, crashed, before):
    path, new = tmp_path / "file", b"".join(NEW)

    def reset():
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)
            path.chmod(0o640)

    reset()
    calls = count(monkeypatch, lambda: write_atomically(path, NEW))
    assert path.read_bytes() == new
    for n in range(1, calls + 1):
        reset()
        open_before = descriptors()
        faulty = Faulty(n, error, crashed)
        raised = attempt(monkeypatch, faulty, lambda: write_atomically(path, NEW))
        where = f"call {n} of {calls}: {faulty.calls[n - 1]}"
        found = path.read_bytes() if path.exists() else None
        assert found in (before, new), where
        assert descriptors() == open_before, where
        if raised is None:
            assert found == new, where
        elif isinstance(error, OSError):
            assert isinstance(raised, OSError), where
            assert (raised.errno, raised.filename) == (error.errno, str(path)), where
            assert ("not written" in str(raised)) == (found == before), where
        else:
            assert raised is error, where
        if not crashed and faulty.calls[n - 1] != "unlink":
            assert set(os.listdir(tmp_path)) <= {path.name}, where
        write_atomically(path, NEW)  # and what a crash left behind is gone with the next write
        assert os.listdir(tmp_path) == [path.name], where
        assert path.read_bytes() == new, where


def test_a_network_is_the_old_or_the_new_one_after_a_fault_at_any_call(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    nets = [tn.Linear(2, 3), tn.Linear(3, 2)]
    params = [net.init(np.random.default_rng(i)) for i, net in enumerate(nets)]
    tn.save(path, nets[0], params[0])
    for n in itertools.count(1):
        faulty = Faulty(n, FAULTS[0], crashed=True)
        raised = attempt(monkeypatch, faulty, partial(tn.save, path, nets[n % 2], params[n % 2]))
        net, loaded = tn.load(path)
        assert net in nets
        np.testing.assert_array_equal(loaded["W"], params[nets.index(net)]["W"])
        if len(faulty.calls) < n:
            assert raised is None
            break
    assert n > 8


def test_a_disk_that_loses_the_end_of_a_write_is_noticed_by_the_reader(tmp_path):
    """Torn after the rename, as no order of calls can prevent: every length but the whole is refused."""
    path = tmp_path / "file"
    write(path, {"a": np.arange(5.0), "b": "text"})
    whole = path.read_bytes()
    for length in range(len(whole)):
        for torn in (whole[:length], whole[:length] + bytes(len(whole) - length)):
            if torn == whole:
                continue
            path.write_bytes(torn)
            with pytest.raises(tn.FileError):
                read(path)
