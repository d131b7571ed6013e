"""Writing a file so that no crash, kill or full disk leaves half of it."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
from pathlib import Path

from tinyconv.errors import DataError


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace the file at `path` by `data` whole, or leave it as it is.

    The bytes go to a temporary file in the same folder, reach the disk (fsync) and only then take
    the name `path`; the folder is synchronised too, so that the new name survives a power cut.
    A link is followed. Raises DataError where the system refuses (disk full, no permission).
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        if os.name == "posix":  # Windows can not open a folder
            _fsync_folder(target.parent)
    except OSError as error:
        raise DataError(f"{path}: could not be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # a read-only folder: the first error is the one to see
            temporary.unlink(missing_ok=True)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder and those above it. Raises DataError where it cannot be made or written to."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise DataError(f"{folder}: this folder cannot be written to")


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files that killed programs left beside `path` while writing it."""
    target = Path(os.path.realpath(path))
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.????????.tmp"):
        leftover.unlink(missing_ok=True)
