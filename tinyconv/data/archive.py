"""Unpacking zip and tar.gz files that came over the network: nothing may land outside the folder.

Every member is looked at by itself, and files are written by their content alone: no links, modes
or owners.
"""

from __future__ import annotations

import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import IO, NamedTuple, cast

from tinyconv.errors import DataError

MAX_BYTES = 4 * 2**30  # what an archive may unpack to: a few kilobytes of zip can claim anything


class _Member(NamedTuple):
    name: str
    size: int
    kind: str  # "file", "folder", or what else it is
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path,
    folder: Path,
    place: Callable[[str], str | None] = lambda name: name,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Write the files of a zip or tar.gz archive, told by its content, under `folder`.

    `place(name)` is where a member goes, relative to `folder`, or None to leave it out. Raises
    DataError, naming the member, for absolute paths, `..`, links, devices, names that come twice,
    more than `max_bytes` in all and a compression other than deflate, wanted or not; and for a
    damaged archive.
    """
    total = 0
    try:
        for member in _members(archive):
            total += member.size
            wrong = _wrong_name(member.name)
            if member.kind not in ("file", "folder"):
                wrong = member.kind
            elif total > max_bytes:
                wrong = f"too large: up to it the archive holds {total:,} bytes, of {max_bytes:,}"
            if wrong:
                raise DataError(f"{archive}: member {member.name!r} is refused: {wrong}")
            target = place(member.name) if member.kind == "file" else None
            if target is not None:
                _write(member, folder / target)
    except FileExistsError as error:
        raise DataError(f"{archive}: {error.filename} comes twice") from error
    # RuntimeError: an encrypted zip
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, RuntimeError) as error:
        raise DataError(f"{archive}: damaged or unknown archive: {error}") from error
    except OSError as error:
        raise DataError(f"{archive}: not unpacked: {error.strerror or error}") from error


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                mode = info.external_attr >> 16
                kind = "folder" if info.is_dir() else "file"
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    kind = "a link" if stat.S_ISLNK(mode) else "neither file nor folder"
                elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    kind = "compressed by something else than deflate"
                yield _Member(info.filename, info.file_size, kind, partial(zipped.open, info))
        return
    with tarfile.open(archive, "r:gz") as packed:
        for entry in packed:
            kind = "folder" if entry.isdir() else "neither file nor folder"
            if entry.isfile() and not entry.issparse():
                kind = "file"
            elif entry.issym() or entry.islnk():
                kind = "a link"
            opened = cast(Callable[[], IO[bytes]], partial(packed.extractfile, entry))
            yield _Member(entry.name, entry.size, kind, opened)


def _wrong_name(name: str) -> str | None:
    if name.startswith(("/", "\\")) or PureWindowsPath(name).drive:
        return "an absolute path"
    if ".." in re.split(r"[/\\]", name):
        return "it leads out of the folder"
    return "a backslash in its name" if "\\" in name else None


def _write(member: _Member, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, open(path, "xb") as file:
        shutil.copyfileobj(source, file, 2**20)
