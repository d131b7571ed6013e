"""Downloads from a server on this machine that does all that servers do, right and wrong."""

from __future__ import annotations

import hashlib
import http.server
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinyconv.data import download
from tinyconv.data.download import Address, NpmPackage, Unavailable
from tinyconv.errors import DataError

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """The first part of a path says how the content is served; `seen` keeps the ranges asked for"""

    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.seen.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        getattr(self, self.path.split("/")[1])(start)

    def plain(self, start: int) -> None:
        self.reply(200, CONTENT)

    def ranged(self, start: int) -> None:
        if start:
            self.reply_part(start, start)
        else:
            self.reply(200, CONTENT)

    def other_range(self, start: int) -> None:
        if start:
            self.reply_part(start - 10, start - 10)
        else:
            self.reply(200, CONTENT)

    def untold_range(self, start: int) -> None:
        if start:
            self.reply(206, CONTENT[:-start])
        else:
            self.reply(200, CONTENT)

    def no_range(self, start: int) -> None:
        self.reply(416 if start else 200, CONTENT)

    def only_a_part(self, start: int) -> None:
        self.reply_part(50, 50)

    def short(self, start: int) -> None:
        self.reply(200, CONTENT[:1000], length=len(CONTENT))

    def untold_length(self, start: int) -> None:
        self.reply(200, CONTENT, length=None)

    def endless(self, start: int) -> None:
        self.reply(200, CONTENT * 100, length=None)

    def other_length(self, start: int) -> None:
        self.reply(200, b"<html>log in first</html>")

    def other_content(self, start: int) -> None:
        self.reply(200, CONTENT[::-1])

    def missing(self, start: int) -> None:
        self.send_error(404)

    def moved(self, start: int) -> None:
        self.reply(302, b"", Location="/ranged/a.bin")

    def circle(self, start: int) -> None:
        self.reply(302, b"", Location=self.path)

    def silent(self, start: int) -> None:
        self.server.closing.wait(20)

    def stalling(self, start: int) -> None:
        self.reply(200, CONTENT[:700], length=len(CONTENT))
        self.wfile.flush()
        self.server.closing.wait(20)

    def reply_part(self, start: int, told: int) -> None:
        size = len(CONTENT)
        self.reply(206, CONTENT[start:], **{"Content-Range": f"bytes {told}-{size - 1}/{size}"})

    def reply(self, status: int, body: bytes, length: int | None = -1, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length == -1 else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[str | None] = []
        self.closing = threading.Event()

    def handle_error(self, *arguments: object) -> None:
        pass  # the client went away

    def address(self, way: str, content: bytes = CONTENT) -> Address:
        url = f"http://127.0.0.1:{self.server_port}/{way}/a.bin"
        return Address(url, len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.closing.set()
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("way", ["plain", "ranged", "untold_length", "moved"])
def test_a_file_arrives_whole(server: Server, tmp_path: Path, way: str) -> None:
    path = server.address(way).fetch(tmp_path)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_file_that_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    server.address("missing").fetch(tmp_path)
    assert server.seen == []


def test_another_file_of_that_name_is_kept_and_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"a\.bin: is not http.*another SHA-256.*remove it"):
        server.address("plain").fetch(tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("way", "asked"),
    [
        ("ranged", ["bytes=300-"]),
        ("plain", ["bytes=300-"]),  # answers with the whole file
        ("other_range", ["bytes=300-", None]),
        ("untold_range", ["bytes=300-", None]),
        ("no_range", ["bytes=300-", None]),
        ("moved", ["bytes=300-", "bytes=300-"]),
    ],
)
def test_a_partial_file_is_gone_on_with(
    server: Server, tmp_path: Path, way: str, asked: list[str | None]
) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:300])
    assert server.address(way).fetch(tmp_path).read_bytes() == CONTENT
    assert server.seen == asked


def test_a_whole_part_needs_no_server(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert server.address("missing").fetch(tmp_path).read_bytes() == CONTENT
    assert server.seen == []


def test_a_part_longer_than_the_file_is_begun_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"x")
    assert server.address("ranged").fetch(tmp_path).read_bytes() == CONTENT
    assert server.seen == [None]


def test_a_partial_file_of_something_else_is_found_out_and_removed(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "a.bin.part").write_bytes(b"x" * 300)
    with pytest.raises(Unavailable, match=f"expected {SHA256}; it is removed"):
        server.address("ranged").fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert server.address("ranged").fetch(tmp_path).read_bytes() == CONTENT


def test_a_connection_that_ends_early_is_told_and_gone_on_from(
    server: Server, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match=r"/short/.* after 1,000 of 10,240 bytes; another try"):
        server.address("short").fetch(tmp_path)
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:1000]
    assert server.address("ranged").fetch(tmp_path).read_bytes() == CONTENT
    assert server.seen == [None, "bytes=1000-"]


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("missing", "the server answers 404 Not Found"),
        ("circle", "the server answers 302"),
        ("other_length", "has 25 bytes; expected 10,240"),
        ("only_a_part", "another part came than the one asked for"),
        ("endless", "more than the expected 10,240 bytes came"),
        ("other_content", f"expected {SHA256}; it is removed"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_left(
    server: Server, tmp_path: Path, way: str, message: str
) -> None:
    with pytest.raises(Unavailable, match=message) as error:
        server.address(way).fetch(tmp_path)
    assert f"/{way}/a.bin: " in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("way", "kept"), [("silent", 0), ("stalling", 700)])
def test_a_server_that_says_no_more(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, kept: int
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    with pytest.raises(Unavailable, match="timed out"):
        server.address(way).fetch(tmp_path)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) == kept


def test_no_server_at_all(server: Server, tmp_path: Path) -> None:
    address = server.address("plain")
    server.shutdown()
    server.server_close()
    with pytest.raises(Unavailable, match="Connection refused"):
        address.fetch(tmp_path)


def test_a_folder_that_is_not_there(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.bin\.part: could not be written: No such file") as e:
        server.address("plain").fetch(tmp_path / "nowhere")
    assert not isinstance(e.value, Unavailable)  # another source would not help


# npm ----------------------------------------------------------------------------------------------

PACKAGE = NpmPackage("some-data", "1.0.0", len(CONTENT), SHA256)


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that is found as npm; the test writes what it does."""
    if os.name != "posix":
        pytest.skip("needs a script that can be run as npm")
    path = tmp_path / "bin" / "npm"
    path.parent.mkdir()
    path.touch()
    path.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(path.parent))
    (tmp_path / "to").mkdir()
    return path


def write(npm: Path, code: str) -> None:
    npm.write_text(f"#!{sys.executable} -S\nimport sys\n{code}\n")


def test_npm_pack_of_one_version(npm: Path, tmp_path: Path) -> None:
    write(
        npm,
        "assert sys.argv[1:] == ['pack', '--ignore-scripts', 'some-data@1.0.0']\n"
        "open('some-data-1.0.0.tgz', 'wb').write(bytes(range(256)) * 40)",
    )
    assert PACKAGE.fetch(tmp_path / "to").read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["some-data-1.0.0.tgz"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("sys.exit('npm error code E404\\nnpm error 404 Not Found')", "1.0.0: 404 Not Found"),
        ("sys.exit('npm ERR! code X\\nnpm ERR! network is down')", "1.0.0: network is down"),
        ("sys.exit(3)", "npm failed"),
        ("", r"npm wrote no some-data-1\.0\.0\.tgz"),
        ("open('some-data-1.0.0.tgz', 'wb').write(b'other')", f"expected {SHA256}"),
        ("import time; time.sleep(20)", "no end after"),
    ],
)
def test_npm_that_fails(
    npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    monkeypatch.setattr(download, "NPM_TIMEOUT", 5.0 if "sleep" not in code else 0.5)
    write(npm, code)
    with pytest.raises(Unavailable, match=message) as error:
        PACKAGE.fetch(tmp_path / "to")
    assert "npm package some-data@1.0.0: " in str(error.value)
    assert list((tmp_path / "to").iterdir()) == []


def test_without_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="npm is not installed"):
        PACKAGE.fetch(tmp_path)
