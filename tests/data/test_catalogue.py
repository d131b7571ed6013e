"""Finding and getting data sets: the catalogue's own entries, and one whose sources are made up."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tinyconv.data import catalogue, layout
from tinyconv.data.catalogue import CATALOGUE, Entry, Source
from tinyconv.data.download import Address, NpmPackage, RemoteFile, Unavailable
from tinyconv.errors import DataError

ROOT = Path(__file__).parents[2]
IDX = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
PETS, BEINGS = ("cats", "dogs"), ("horses", "humans")
FILES = {  # what a folder of each data set must hold at least
    "mnist": [f"{name}-ubyte.gz" for name in IDX],
    "fashion_mnist": [f"{name}-ubyte" for name in IDX],
    "cats_vs_dogs": [f"{part}_set/{c}/1.jpg" for part in ("training", "test") for c in PETS],
    "horse_or_human": [f"{part}/{c}/1.png" for part in ("train", "validation") for c in BEINGS],
    "cifar10": [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"],
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of data sets in the user's cache, on a machine that has none elsewhere."""
    monkeypatch.delenv("TINYCONV_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tinyconv"


def fill(folder: Path, files: Sequence[str]) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"content")
    return folder


# The entries --------------------------------------------------------------------------------------


def test_the_catalogue_has_the_sets_of_the_examples() -> None:
    assert set(CATALOGUE) == set(FILES)


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE)
def test_entries_are_whole(entry: Entry) -> None:
    assert all((entry.what, entry.images, entry.homepage, entry.licence, entry.example))
    assert (ROOT / entry.example).is_file()
    remote = [file for source in entry.sources for file in source.files]
    assert len({file.name for file in remote}) == len(remote)
    assert isinstance(entry.sources[0].files[0], Address)
    digests = [file.sha256 for file in remote]
    for source in entry.sources:
        digests += source.contents.values()
        if isinstance(source.files[0], NpmPackage):  # what is made of a package is verified too
            assert source.contents
    for digest in digests:
        assert re.fullmatch("[0-9a-f]{64}", digest)
    for file in remote:
        assert file.size > 1000
        assert "/" not in file.name


@pytest.mark.parametrize(("name", "files"), FILES.items())
def test_a_folder_holds_a_set_only_with_all_its_files(
    name: str, files: list[str], tmp_path: Path
) -> None:
    assert catalogue.holds(name, fill(tmp_path / "whole", files))
    assert not catalogue.holds(name, tmp_path / "nowhere")
    for missing in files:
        folder = fill(tmp_path / missing.replace("/", "-"), files)
        (folder / missing).unlink()
        assert not catalogue.holds(name, folder)


# Finding ------------------------------------------------------------------------------------------


def test_where_a_set_is_looked_for(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "system"
    entry = Entry("", 1, "", "", "", (), CATALOGUE["mnist"].check, places=(str(system),))
    monkeypatch.setitem(CATALOGUE, "mine", entry)
    assert catalogue.find("mine") is None
    fill(system, FILES["mnist"])
    assert catalogue.find("mine") == system
    fill(cache / "mine", FILES["mnist"])
    assert catalogue.find("mine") == cache / "mine"
    fill(tmp_path / "data" / "mine", FILES["mnist"])
    monkeypatch.setenv("TINYCONV_DATA", str(tmp_path / "data"))
    assert catalogue.find("mine") == tmp_path / "data" / "mine"
    (tmp_path / "data" / "mine" / FILES["mnist"][0]).unlink()
    assert catalogue.find("mine") == cache / "mine"


def test_debians_folder_of_fashion_mnist() -> None:
    assert CATALOGUE["fashion_mnist"].places == ("/usr/share/datasets/fashion-mnist",)


def test_the_cache_without_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    fill(tmp_path / ".cache" / "tinyconv" / "cifar10", FILES["cifar10"])
    assert catalogue.find("cifar10") == tmp_path / ".cache" / "tinyconv" / "cifar10"


def test_resolve(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        catalogue.resolve("cifar10")
    assert str(error.value) == "cifar10 is not on this machine: python -m tinyconv data get cifar10"
    fill(cache / "cifar10", FILES["cifar10"])
    assert catalogue.resolve("cifar10") == cache / "cifar10"
    (tmp_path / "cifar10").mkdir()  # a folder that is not the set does not hide it
    assert catalogue.resolve("cifar10") == cache / "cifar10"
    assert catalogue.resolve("./cifar10") == Path("cifar10")  # a path is a path
    fill(tmp_path / "cifar10", FILES["cifar10"])
    assert catalogue.resolve("cifar10") == Path("cifar10")
    assert catalogue.resolve(tmp_path) == tmp_path
    (tmp_path / "mnist").mkdir()  # which the machine does not have elsewhere
    assert catalogue.resolve("mnist") == Path("mnist")


@pytest.mark.parametrize("text", ["photos/here", "Mnist", "", "\0", "x" * 5000])
def test_resolve_names_what_is_neither_path_nor_name(text: str) -> None:
    with pytest.raises(DataError, match=r"no such file or folder, nor a data set .*mnist, fashion"):
        catalogue.resolve(text)


def test_an_unknown_name() -> None:
    for function in (catalogue.find, catalogue.get):
        with pytest.raises(ValueError, match="no data set 'kitti' in the catalogue; it has mnist"):
            function("kitti")


# Getting ------------------------------------------------------------------------------------------


class MadeUp(RemoteFile):
    """A file that some server would serve, or not where `content` is None."""

    def __init__(self, name: str, content: bytes | None, expected: bytes | None = None) -> None:
        self._name, self.content = name, content
        self.sha256 = hashlib.sha256(expected or content or b"").hexdigest()
        self.size, self.fetched = 1, 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def origin(self) -> str:
        return f"http://example.org/{self._name}"

    def _fetch(self, part: Path) -> None:
        self.fetched += 1
        if self.content is None:
            raise Unavailable(f"{self.origin}: no way")
        part.write_bytes(self.content)


def check(folder: Path) -> None:
    if not (folder / "a.txt").is_file():
        raise DataError(f"{folder}: no a.txt")


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch):
    """Puts the data set "mini" with some sources into the catalogue."""

    def enter(*sources: Source, by_hand: str = "") -> None:
        entry = Entry("", 1, "", "", "", sources, check, by_hand=by_hand)
        monkeypatch.setitem(CATALOGUE, "mini", entry)

    return enter


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_get_makes_the_folder_and_leaves_nothing_else(enter, cache: Path) -> None:
    files = MadeUp("a.txt", b"a"), MadeUp("b.txt", b"b")
    enter(Source(files, layout.copy))
    assert catalogue.get("mini") == cache / "mini"
    assert tree(cache) == ["mini", "mini/a.txt", "mini/b.txt"]
    assert catalogue.get("mini") == cache / "mini"
    assert [file.fetched for file in files] == [1, 1]


def test_get_never_writes_where_it_was_only_told_to_look(
    enter, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("TINYCONV_DATA", str(tmp_path / "data"))
    enter(Source((MadeUp("a.txt", b"a"),), layout.copy))
    assert catalogue.get("mini") == cache / "mini"
    assert tree(tmp_path / "data") == []


def test_get_to_a_folder(enter, tmp_path: Path, cache: Path) -> None:
    file = MadeUp("a.txt", b"a")
    enter(Source((file,), layout.copy))
    fill(cache / "mini", ["a.txt"])
    (tmp_path / "to" / "mini").mkdir(parents=True)  # an empty one is no obstacle
    for _ in range(2):
        assert catalogue.get("mini", tmp_path / "to") == tmp_path / "to" / "mini"
    assert (tmp_path / "to" / "mini" / "a.txt").read_bytes() == b"a"
    assert file.fetched == 1


def test_files_saved_by_hand_are_verified_and_used(enter, cache: Path) -> None:
    (cache / "mini.downloads").mkdir(parents=True)
    (cache / "mini.downloads" / "a.txt").write_bytes(b"a")
    file = MadeUp("a.txt", None, expected=b"a")
    enter(Source((file,), layout.copy))
    catalogue.get("mini")
    assert tree(cache) == ["mini", "mini/a.txt"]
    assert file.fetched == 0


def test_the_next_source_is_tried(enter, cache: Path, capsys) -> None:
    enter(
        Source((MadeUp("a.txt", b"a"), MadeUp("b.txt", None)), layout.copy),
        Source((MadeUp("c.txt", b"not c", expected=b"c"),), layout.copy),
        Source((MadeUp("a.txt", b"a"),), layout.copy),
    )
    catalogue.get("mini")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [
        "http://example.org/b.txt: no way",
        "trying http://example.org/c.txt instead",
    ]
    assert "c.txt: what came has the SHA-256" in lines[2]
    assert tree(cache) == ["mini", "mini/a.txt"]


def test_without_any_source_the_last_line_says_what_to_do(enter, cache: Path) -> None:
    enter(
        Source((MadeUp("a.txt", b"a"), MadeUp("b.txt", None)), layout.copy),
        Source((MadeUp("c.txt", None),), layout.copy),
        by_hand="ask somebody",
    )
    with pytest.raises(DataError) as error:
        catalogue.get("mini")
    downloads = cache / "mini.downloads"
    assert str(error.value).splitlines() == [
        "http://example.org/b.txt: no way; http://example.org/c.txt: no way",
        f"by hand: save http://example.org/a.txt http://example.org/b.txt in a folder {downloads} "
        "and run this again: it verifies and unpacks them; or ask somebody",
    ]
    assert tree(cache) == ["mini.downloads", "mini.downloads/a.txt"]  # what came is kept


@pytest.mark.parametrize("stop", [Unavailable, KeyboardInterrupt])
def test_an_empty_folder_of_downloads_is_not_left_behind(enter, cache: Path, stop) -> None:
    class Stops(MadeUp):
        def _fetch(self, part: Path) -> None:
            assert part.parent.is_dir()
            raise stop

    enter(Source((Stops("a.txt", b"a"),), layout.copy))
    with pytest.raises(KeyboardInterrupt if stop is KeyboardInterrupt else DataError):
        catalogue.get("mini")
    assert tree(cache) == []


def test_a_hostile_archive_makes_nothing(enter, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"a")
        archive.writestr("../../escaped", b"evil")

    def lay_out(files: Sequence[Path], folder: Path) -> None:
        layout.unpack(files[0], folder)

    enter(Source((MadeUp("evil.zip", path.read_bytes()),), lay_out))
    with pytest.raises(DataError, match=r"member '\.\./\.\./escaped' is refused.*\nby hand: "):
        catalogue.get("mini")
    assert tree(cache) == ["mini.downloads", "mini.downloads/evil.zip"]
    assert not list(tmp_path.rglob("escaped"))


def test_what_the_layout_made_is_verified(enter, cache: Path) -> None:
    digest = hashlib.sha256(b"a").hexdigest()
    enter(Source((MadeUp("a.txt", b"a"),), layout.copy, {"a.txt": digest}))
    catalogue.get("mini")
    (cache / "mini" / "a.txt").unlink()
    enter(Source((MadeUp("a.txt", b"other"),), layout.copy, {"a.txt": digest}))
    with pytest.raises(DataError, match=rf"a\.txt of .* has the SHA-256 .*; not {digest}\nby hand"):
        catalogue.get("mini")
    enter(Source((MadeUp("b.txt", b"b"),), layout.copy))
    with pytest.raises(DataError, match=r"no a\.txt\nby hand"):
        catalogue.get("mini")
    assert tree(cache / "mini") == []


def test_an_interrupt_leaves_no_half_of_a_set(enter, cache: Path) -> None:
    def lay_out(files: Sequence[Path], folder: Path) -> None:
        layout.copy(files, folder)
        raise KeyboardInterrupt

    enter(Source((MadeUp("a.txt", b"a"),), lay_out))
    with pytest.raises(KeyboardInterrupt):
        catalogue.get("mini")
    assert tree(cache) == ["mini.downloads", "mini.downloads/a.txt"]


def test_what_is_in_the_way_is_kept(enter, cache: Path) -> None:
    enter(Source((MadeUp("a.txt", b"a"),), layout.copy))
    fill(cache / "mini", ["my notes"])
    with pytest.raises(DataError, match="mini: is there, but is not mini: move it away"):
        catalogue.get("mini")
    assert tree(cache) == ["mini", "mini/my notes"]


def test_a_place_where_no_folder_can_be_made(enter, tmp_path: Path) -> None:
    enter(Source((MadeUp("a.txt", b"a"),), layout.copy))
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"cannot be made \(.*\): choose a folder with --to"):
        catalogue.get("mini", tmp_path / "file")
