"""Folders of photos, one folder per class."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from tinyconv.data.dataset import Dataset, PathLike
from tinyconv.data.image import as_height_width, read_image
from tinyconv.data.loader import in_threads
from tinyconv.data.progress import with_progress
from tinyconv.errors import DataError

TRAIN_NAMES = ("training_set", "train", "training")
TEST_NAMES = ("test_set", "test", "testing", "validation", "valid", "val")

_IMAGE_NAME = re.compile(r".+\.(jpe?g|jfif|png|webp|gif|bmp|tiff?|p[bgnp]m)", re.IGNORECASE)
_LARGE = 1000  # images from which on reading them shows a progress bar
_LISTED = 10  # unreadable images that an error names


class ImageFolder(Dataset):
    """The images under `root`, whose subfolders are the classes, sorted by name:
    root/cats/cat.1.jpg, root/cats/cat.2.jpg, root/dogs/dog.1.jpg, ...

    Within a class, deeper folders are searched too, and the order is by name with numbers by value.
    Files of other kinds, hidden files and links to an image already counted are left out and
    counted in `ignored`.

    All images are read once, in `workers` threads, when the data set is made, so that a bad one is
    found before a training begins. on_error="stop" then raises one DataError that lists them;
    "skip" leaves them out and keeps (path, reason) of each in `skipped`. `report()` says what was
    found. Images stay in memory as far as `cache_bytes` reach; the others are read again at each
    use. `size` and `channels` are those of `read_image`; without a size each image keeps its own.
    `limit` takes about that many images, the same share of each class, drawn from `seed`; the
    others are not read.

    Raises DataError for a missing folder, no class folder or only one, and a class without images.
    """

    def __init__(
        self,
        root: PathLike,
        size: int | tuple[int, int] | None = None,
        on_error: Literal["stop", "skip"] = "stop",
        cache_bytes: int = 2 * 2**30,
        workers: int = 2,
        channels: int = 3,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        if on_error not in ("stop", "skip"):
            raise ValueError(f"on_error is {on_error!r}; expected 'stop' or 'skip'")
        self.root = Path(root)
        self.size = None if size is None else as_height_width(size)
        self.channels = channels
        folders, self.ignored = _class_folders(self.root)
        self.classes = [folder.name for folder in folders]
        self.paths: list[Path] = []
        self.skipped: list[tuple[Path, str]] = []
        self._cache: list[np.ndarray] = []  # of the first images
        self._list_images(folders)
        if limit is not None and limit < len(self.labels):
            _, part = self.split(limit / len(self.labels), seed)
            self.paths = [self.paths[index] for index in part.indices]
            self.labels = part.labels
        self._read_images(cache_bytes, workers, on_error)
        self.in_memory = len(self._cache) == len(self)

    def image(self, index: int) -> np.ndarray:
        if 0 <= index < len(self._cache):
            return self._cache[index]
        return read_image(self.paths[index], self.size, self.channels)

    def name(self, index: int) -> str:
        return self.paths[index].name

    def report(self) -> str:
        """What was found, ignored and skipped: one line, and one more for each bad file named."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        listed = ", ".join(f"{n} {c:,}" for n, c in zip(self.classes, counts, strict=True))
        line = f"{self.root}: {len(self):,} images in {len(self.classes)} classes"
        if len(self.classes) <= _LISTED:
            line += f" ({listed})"
        if self.ignored:
            line += f"; {self.ignored:,} other files ignored"
        if self.skipped:
            line += f"; {len(self.skipped):,} unreadable skipped:{self._bad_files()}"
        return line

    def _list_images(self, folders: list[Path]) -> None:
        labels: list[int] = []
        counted: set[str] = set()
        # A link into another class, or back up, must not bring its images in a second time.
        entered = {os.path.realpath(folder) for folder in (self.root, *folders)}
        for label, folder in enumerate(folders):
            others, before = 0, len(labels)
            for path, real in _walk(folder, os.path.realpath(folder), entered):
                if not _is_image(path) or real in counted:
                    others += 1
                    continue
                counted.add(real)
                labels.append(label)
                self.paths.append(path)
            if len(labels) == before:
                raise DataError(
                    f"{folder}: a class folder without images of its own "
                    f"(found {others} other files); fill it or remove it"
                )
            self.ignored += others
        self.labels = np.array(labels, dtype=np.int64)

    def _read_images(self, cache_bytes: int, workers: int, on_error: str) -> None:
        def read(path: Path) -> np.ndarray | DataError:
            try:
                return read_image(path, self.size, self.channels)
            except DataError as error:
                return error

        results: Iterable[np.ndarray | DataError] = in_threads(read, self.paths, workers)
        if len(self.paths) >= _LARGE:
            results = with_progress(results, len(self.paths), f"Reading {self.root}")
        readable = np.ones(len(self.paths), dtype=bool)
        for index, (path, result) in enumerate(zip(self.paths, results, strict=True)):
            if isinstance(result, DataError):
                readable[index] = False
                self.skipped.append((path, str(result).removeprefix(f"{path}: ")))
                continue
            cache_bytes -= result.nbytes
            if cache_bytes >= 0:
                result.flags.writeable = False
                self._cache.append(result)
        if self.skipped and on_error == "stop":
            raise DataError(self._unreadable())
        self.paths = [path for path, good in zip(self.paths, readable, strict=True) if good]
        all_labels, self.labels = self.labels, self.labels[readable]
        for label in np.setdiff1d(all_labels, self.labels):
            folder = self.root / self.classes[label]
            path, reason = next(bad for bad in self.skipped if bad[0].is_relative_to(folder))
            raise DataError(
                f"{folder}: none of the images of this class can be read; {path.name}: {reason}"
            )

    def _unreadable(self) -> str:
        return (
            f"{self.root}: {len(self.skipped):,} of {len(self.paths):,} images cannot be read "
            f"(--on-error skip, in Python on_error='skip', leaves them out):{self._bad_files()}"
        )

    def _bad_files(self) -> str:
        lines = [f"\n  {path}: {reason}" for path, reason in self.skipped[:_LISTED]]
        if len(self.skipped) > _LISTED:
            lines.append(f"\n  and {len(self.skipped) - _LISTED:,} more")
        return "".join(lines)


def list_images(folder: PathLike) -> list[Path]:
    """The image files under `folder` and its subfolders, told by their names, each once, sorted.

    Raises DataError where `folder` is no folder.
    """
    real = os.path.realpath(folder)
    by_real_path: dict[str, Path] = {}
    for path, target in _walk(Path(folder), real, {real}):
        if _is_image(path):
            by_real_path.setdefault(target, path)
    return list(by_real_path.values())


def find_splits(root: PathLike) -> tuple[Path, Path | None]:
    """(training folder, test folder or None) of a data set laid out as on Kaggle.

    Known names are training_set/test_set, train/test, train/validation and the like; a folder that
    holds nothing but one folder of folders (training_set/training_set, dataset/...) is gone
    through. Where no name is known, `root` itself is the training folder. Raises DataError where
    `root` is no folder.
    """
    folder = _unwrap(Path(root))
    by_name = {path.name.lower(): path for path in _subfolders(folder)}
    train = next((by_name[name] for name in TRAIN_NAMES if name in by_name), None)
    test = next((by_name[name] for name in TEST_NAMES if name in by_name), None)
    if train is None or not _subfolders(train):  # without class folders in it, a class of trains
        return folder, None
    return _unwrap(train), None if test is None else _unwrap(test)


def _unwrap(folder: Path) -> Path:
    for _ in range(4):  # a link back up must not be followed for ever
        inside = _subfolders(folder)
        if len(inside) != 1 or not _subfolders(inside[0]):
            break
        folder = inside[0]
    return folder


def _class_folders(root: Path) -> tuple[list[Path], int]:
    """The class folders in `root`, and the number of files beside them."""
    expected = f"expected one folder per class: {root / 'cats'}, {root / 'dogs'}, ..."
    folders = _subfolders(root)
    files = [Path(entry.path) for entry in _entries(root) if not _is_folder(entry)]
    images = sum(map(_is_image, files))
    found = f"found {images} images and {len(files) - images} other files directly in it"
    if not folders:
        raise DataError(f"{root}: no class folders ({found}); {expected}")
    names = {folder.name.lower() for folder in folders}
    if not names.isdisjoint(TRAIN_NAMES) and not names.isdisjoint(TEST_NAMES):
        parts = ", ".join(sorted(names))
        raise DataError(f"{root}: holds the parts of a data set ({parts}); give one of them")
    if len(folders) == 1:
        raise DataError(f"{root}: a single class, {folders[0].name!r} ({found}); {expected}")
    return sorted(folders, key=lambda folder: folder.name), len(files)


def _subfolders(folder: Path) -> list[Path]:
    """The folders in `folder`, but for hidden ones and links that lead back up to it."""
    real = Path(os.path.realpath(folder))
    return [
        Path(entry.path)
        for entry in _entries(folder)
        if _is_folder(entry)
        and not _is_hidden(entry.name)
        and not (entry.is_symlink() and real.is_relative_to(os.path.realpath(entry.path)))
    ]


def _walk(folder: Path, real: str, entered: set[str]) -> Iterator[tuple[Path, str]]:
    """(path, real path) of every file under `folder`, whose real path is `real`.

    No folder in `entered` is entered again, nor, by a link, one that holds the folder of the link.
    """
    for entry in _entries(folder):
        link = entry.is_symlink()
        target = os.path.realpath(entry.path) if link else os.path.join(real, entry.name)
        if not _is_folder(entry):
            yield Path(entry.path), target
        elif not (_is_hidden(entry.name) or target in entered or Path(real).is_relative_to(target)):
            entered.add(target)
            yield from _walk(Path(entry.path), target, entered)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in `folder`, by name with numbers by value: cat.2 before cat.10."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: _natural(entry.name))
    except FileNotFoundError:
        raise DataError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise DataError(f"{folder}: is a file; expected a folder") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split("([0-9]+)", name)
    return [int(part) if n % 2 else part for n, part in enumerate(parts)], name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # os.path.isdir answers False for a link that leads to itself, entry.is_dir() raises.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_image(path: Path) -> bool:
    return _IMAGE_NAME.fullmatch(path.name) is not None and not _is_hidden(path.name)
