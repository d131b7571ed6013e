"""python -m tinyconv data list and data get."""

import argparse
import hashlib

import pytest

from tinyconv.cli import data
from tinyconv.data import catalogue, layout
from tinyconv.data.catalogue import CATALOGUE, Entry, Source
from tinyconv.data.download import Address
from tinyconv.errors import DataError

FILE = Address("http://127.0.0.1:9/a.txt", 1, hashlib.sha256(b"a").hexdigest())  # nobody serves it


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Nothing is on this machine, and the catalogue knows a data set "mini" too."""
    monkeypatch.delenv("TINYCONV_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("COLUMNS", "60")

    def check(folder):
        if not (folder / "a.txt").exists():
            raise DataError(f"{folder}: no a.txt")

    sources = (Source((FILE,), layout.copy),)
    entry = Entry("letters", 1, "http://a", "free", "train_a.py", sources, check, note="a note")
    monkeypatch.setitem(CATALOGUE, "mini", entry)
    return tmp_path / "cache" / "tinyconv"


def run(*arguments):
    """The exit code of a command."""
    parser = argparse.ArgumentParser()
    data.add(parser.add_subparsers())
    options = parser.parse_args(["data", *map(str, arguments)])
    return options.command(options)


def save_by_hand(folder):
    folder.mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"a")


def test_list_tells_all_of_every_set(cache, capsys):
    save_by_hand(cache / "mini")
    assert run("list") == 0
    out = capsys.readouterr().out
    blocks = {block.split()[0]: block for block in out.split("\n\n")}
    for name, entry in CATALOGUE.items():
        text = " ".join(blocks[name].split())
        assert f"{name} {entry.images:,} {entry.size / 1e6:,.1f} MB " in text
        assert f"source: {entry.homepage} licence: {entry.licence}" in text
        digests = text.partition("SHA-256, verified: ")[2].split(" (first")[0].split()
        for digest, file in zip(digests, entry.sources[0].files, strict=True):
            assert len(digest) == 12
            assert file.sha256.startswith(digest)
        assert entry.what in text
        assert entry.note in text
    assert f"MB   {cache / 'mini'}\n" in blocks["mini"]
    assert "170.1 MB   no\n" in blocks["cifar10"]


def test_get_says_where_it_is_and_what_to_type_next(cache, capsys):
    save_by_hand(cache / "mini.downloads")
    assert run("get", "mini") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"mini is in {cache / 'mini'}"
    assert lines[-1] == "next: python train_a.py --data mini"
    assert run("get", "mini") == 0  # again: it is there


def test_get_to_a_folder_that_is_not_searched(tmp_path, capsys, monkeypatch):
    save_by_hand(tmp_path / "my data" / "mini.downloads")
    assert run("get", "mini", "--to", tmp_path / "my data") == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"next: python train_a.py --data '{tmp_path / 'my data' / 'mini'}'"
    assert catalogue.find("mini") is None
    monkeypatch.setenv("TINYCONV_DATA", str(tmp_path / "my data"))
    assert run("get", "mini") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "next: python train_a.py --data mini"


def test_get_that_fails_says_what_to_do_by_hand(cache):
    with pytest.raises(DataError) as error:
        run("get", "mini")
    first, last = str(error.value).splitlines()
    assert first == f"{FILE.url}: Connection refused"
    assert last.startswith(
        f"by hand: save {FILE.url} in a folder {cache / 'mini.downloads'} and run"
    )


def test_an_unknown_name_is_a_wrong_call(capsys):
    with pytest.raises(SystemExit) as end:
        run("get", "kitti")
    assert end.value.code == 2
    assert "choose from" in capsys.readouterr().err
