"""Files on disk: whole or not there."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from itertools import count
from os import PathLike


class FileReplacedError(OSError):
    """Another process has written the file, or removed it, since this one last looked."""


class Known:
    """What stands at a path, as this process last saw or wrote it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.mark = mark_of(path)

    def check(self) -> None:
        """Raise FileReplacedError if it is another file by now. One that is gone is as good: nothing can be lost."""
        mark = mark_of(self.path)
        if mark not in (None, self.mark):
            raise FileReplacedError(errno.EEXIST, "Another process has written this file meanwhile", os.fspath(self.path))


def mark_of(path: str | PathLike[str]) -> tuple[int, ...] | None:
    """Return what tells the file from any other that stood or will stand at `path`, None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def free_name(path: str) -> str:
    """Return a name beside `path` that no file has, such as run-2.safetensors."""
    stem, extension = os.path.splitext(path)
    return next(name for i in count(2) if not os.path.lexists(name := f"{stem}-{i}{extension}"))


def write_atomically(path: str | PathLike[str], content: bytes | bytearray, known: Known | None = None) -> None:
    """Replace the file `path` by one that holds `content`: at any moment, and after a crash, the old one or the new one is there.

    It is written under a temporary name in the same folder, synced, then renamed; only a kill in between leaves that second file,
    .microgpt-*.tmp. A symbolic link stays one, and a file that is replaced hands on its permissions. Where `known` is given, it
    replaces nothing else, and knows the new file afterwards.
    Errors: OSError that names `path`, which is then as before: a missing or unwritable folder, a write-protected file, a full
    disk, or a path that is no ordinary file; FileReplacedError where it is not the known one.
    """
    try:
        target, temporary = places(path)
        mode = replaceable_mode(target)
        try:
            with open(temporary, "xb") as file:
                if mode is not None:
                    with suppress(OSError):  # of a file system without permissions
                        os.chmod(temporary, mode)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            mark = mark_of(temporary)  # which it keeps under its new name
            if known is not None:
                known.check()
            os.replace(temporary, target)
            if known is not None:
                known.mark = mark
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except FileReplacedError:
        raise
    except OSError as error:
        # The temporary name would say nothing to whoever asked for `path`.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    sync_folder(os.path.dirname(temporary))


def check_writable(path: str | PathLike[str]) -> None:
    """Raise OSError, as `write_atomically` would, unless the file `path` can be written. It stays as it is."""
    try:
        target, temporary = places(path)
        replaceable_mode(target)
        with open(temporary, "xb"):
            pass
        os.unlink(temporary)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def places(path: str | PathLike[str]) -> tuple[str, str]:
    """Return the file that `path` leads to, and a new name in its folder. OSError for an empty path."""
    target = os.path.realpath(path) if os.path.islink(path) else os.fspath(path)
    if not target:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), target)
    return target, os.path.join(os.path.dirname(target) or os.curdir, f".microgpt-{os.urandom(8).hex()}.tmp")


def replaceable_mode(path: str) -> int | None:
    """Return the permissions of the file `path`, None if there is none. OSError if it must not be replaced."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    check_ordinary(path, status)
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return stat.S_IMODE(status.st_mode)


def check_ordinary(path: str | PathLike[str], status: os.stat_result) -> None:
    """OSError unless `status`, that of `path`, is an ordinary file's: a device or pipe has no end and cannot be replaced."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not an ordinary file", os.fspath(path))


def sync_folder(folder: str) -> None:
    """Let the renaming in `folder` outlast a power failure, where the system can do that: the file is in place in any case."""
    if os.name == "posix":
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
