"""Writing whole files or none."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from tinynet.files.atomic import write_atomically

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"good")
    return path


def assert_unharmed(path):
    assert path.read_bytes() == b"good"
    assert os.listdir(path.parent) == ["file"]


def test_a_file_is_written_replaced_and_readable_by_whom_the_umask_lets(path):
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file"]
    (path.parent / "usual").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((path.parent / "usual").stat().st_mode)


def test_a_full_disk_leaves_the_old_file_and_is_named(path):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
    try:
        with pytest.raises(OSError, match="a file that was there before is unchanged") as caught:
            write_atomically(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(path)
    assert_unharmed(path)


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_an_error_at_any_step_leaves_the_old_file(path, monkeypatch, step, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)) as caught:
        write_atomically(path, b"new")
    if isinstance(error, OSError):
        assert caught.value.filename == str(path)
        assert "No space left on device" in str(caught.value)
    assert_unharmed(path)


def test_a_read_only_folder_leaves_the_old_file_and_is_named():
    # In a process of its own, which gives up root where it has it.
    code = (
        "import os, sys, tinynet.files.atomic as a\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "try: a.write_atomically(sys.argv[1], b'new')\n"
        "except PermissionError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(b"good")
        path.parent.chmod(0o555)
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, cwd=REPOSITORY)
        path.parent.chmod(0o755)
        expected = f"Permission denied (not written; a file that was there before is unchanged): '{path}'"
        assert expected in done.stdout, done.stderr
        assert_unharmed(path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere/file"):
        write_atomically(tmp_path / "nowhere" / "file", b"new")
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, b"new")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_a_file_keeps_its_mode_and_is_never_open_to_more_people(path, monkeypatch, mode):
    path.chmod(mode)
    modes = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: [modes.append(stat.S_IMODE(os.fstat(file).st_mode)), fsync(file)])
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert modes[0] & ~mode == 0


def test_what_is_no_file_is_refused_and_stays(tmp_path):
    pipe, device, folder = tmp_path / "pipe", tmp_path / "device", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    device.symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path in (pipe, device, folder, tmp_path / "socket"):
            kind = stat.S_IFMT(path.stat().st_mode)
            with pytest.raises(OSError, match=r"not a regular file|Is a directory") as caught:
                write_atomically(path, b"new")
            assert caught.value.filename == str(path)
            assert stat.S_IFMT(path.stat().st_mode) == kind


def test_a_link_to_a_file_that_is_not_there_makes_it(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "file")
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_symbolic_link_stays(path):
    link = path.with_name("link")
    link.symlink_to(path)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"


def test_two_writers_never_mix_and_a_reader_never_sees_a_part(path):
    contents = [bytes([i]) * 300_000 for i in range(4)]
    write_atomically(path, contents[0])
    writers = [threading.Thread(target=lambda c=c: [write_atomically(path, c) for _ in range(10)]) for c in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_bytes() in contents
    assert path.read_bytes() in contents
    assert os.listdir(path.parent) == ["file"]


def test_what_a_killed_writer_left_is_removed_by_the_next_and_a_live_writers_file_is_not(path):
    code = (
        "import os, sys, signal, tinynet.files.atomic as a\n"
        "a.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "a.write_atomically(sys.argv[1], bytes(1000))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], cwd=REPOSITORY)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"good"
    [leftover] = set(os.listdir(path.parent)) - {"file"}
    live = path.with_name(leftover.replace(f".{leftover.split('.')[-3]}.", f".{os.getpid()}."))
    live.touch()
    stranger = path.with_name(".file.tmp")
    stranger.touch()
    write_atomically(path, b"new")
    assert set(os.listdir(path.parent)) == {"file", live.name, stranger.name}
