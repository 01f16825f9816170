"""Write a file so that a reader finds the old one or the new one, whole, and never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import socket
import stat
from collections.abc import Sequence
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], data: bytes | Sequence[bytes | memoryview]) -> None:
    """Write `data`, or its parts one after the other, to a temporary file beside `path`, flush it, and rename it.

    Whatever goes wrong, the file that was there before still is, and the temporary file is gone. Only a process that
    is killed outright leaves its temporary file behind; the next write to the same path removes it. Of two writers
    the one that renames last wins, with a whole file. A file keeps its mode. A symbolic link stays, and the file it
    points to is replaced; a folder, pipe, socket or device is refused.

    Raises:
        OSError: the file could not be written; names `path`.
    """
    target = Path(os.path.realpath(path))
    outcome = "not written; a file that was there before is unchanged"
    try:
        mode = _mode(target)
        _remove_leftovers(target)
        temporary = target.with_name(f"{_prefix(target)}{os.getpid()}.{secrets.token_hex(4)}.tmp")
        try:
            # Nobody may read it who could not read the file before, not even for a moment.
            with open(temporary, "xb", opener=lambda path, flags: os.open(path, flags, mode or 0o666)) as file:
                file.writelines([data] if isinstance(data, bytes) else data)
                file.flush()
                os.fsync(file.fileno())
            if mode is not None:
                os.chmod(temporary, mode)  # what the umask took away
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        outcome = "written, but its folder was not flushed to the disk"
        _sync_folder(target.parent)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror or error} ({outcome})", os.fspath(path)) from error


def _mode(target: Path) -> int | None:
    """Return the mode of the file at `target`; None where there is none."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return stat.S_IMODE(mode)


def _prefix(target: Path) -> str:
    return f".{target.name}.{socket.gethostname()}."


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself outlive a power cut, where a folder can be opened (not on Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(target: Path) -> None:
    """Remove the temporary files of processes of this host that are no more."""
    if os.name != "posix":
        return
    temporary = re.compile(re.escape(_prefix(target)) + r"([0-9]+)\.[0-9a-f]+\.tmp")
    with contextlib.suppress(OSError):  # whatever keeps us from tidying up, the writing itself will meet or not
        for name in os.listdir(target.parent):
            if (match := temporary.fullmatch(name)) and not _is_alive(int(match[1])):
                os.unlink(target.parent / name)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
