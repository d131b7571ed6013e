"""Class folders as people have them: nested, linked, damaged, empty, zipped on a Mac."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyconv.data.folder import ImageFolder, find_splits, list_images
from tinyconv.errors import DataError


def write_image(path: Path, value: int = 0, size: tuple[int, int] = (6, 8)) -> Path:
    """An image of one grey `value`, height and width `size`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (value,) * 3).save(path, format="PNG")
    return path


def write_classes(root: Path, **counts: int) -> Path:
    """root/cats/cats.0.png ...; the images are numbered through by their grey value."""
    value = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for n in range(count):
            write_image(root / name / f"{name}.{n}.png", value)
            value += 1
    return root


def values(folder: ImageFolder) -> list[int]:
    return [int(folder.image(n)[0, 0, 0]) for n in range(len(folder))]


def test_classes_sorted_images_in_order_of_their_numbers(tmp_path: Path) -> None:
    write_classes(tmp_path, dogs=2, cats=12)
    folder = ImageFolder(tmp_path)
    assert folder.classes == ["cats", "dogs"]
    assert folder.labels.tolist() == [0] * 12 + [1] * 2
    assert folder.labels.dtype == np.int64
    assert values(folder) == [*range(2, 14), 0, 1]
    assert folder.name(10) == "cats.10.png"
    assert folder.image(0).shape == (6, 8, 3)
    assert not folder.drawn


def test_size_resizes_every_image(tmp_path: Path) -> None:
    write_image(tmp_path / "a/1.png", size=(20, 30))
    write_image(tmp_path / "b/1.png", size=(7, 5))
    assert [ImageFolder(tmp_path, size=16).image(n).shape for n in (0, 1)] == [(16, 16, 3)] * 2
    assert ImageFolder(tmp_path, size=(4, 9)).image(1).shape == (4, 9, 3)
    assert ImageFolder(tmp_path).image(1).shape == (7, 5, 3)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("cache_bytes", [0, 2 * 6 * 8 * 3 + 1, 2**20])
def test_neither_workers_nor_cache_change_the_images(
    tmp_path: Path, workers: int, cache_bytes: int
) -> None:
    write_classes(tmp_path, a=4, b=3)
    folder = ImageFolder(tmp_path, workers=workers, cache_bytes=cache_bytes)
    assert values(folder) == list(range(7))
    assert folder.in_memory == (cache_bytes == 2**20)


def test_what_fits_the_cache_is_not_read_again(tmp_path: Path) -> None:
    write_classes(tmp_path, a=2, b=2)
    folder = ImageFolder(tmp_path, cache_bytes=3 * 6 * 8 * 3)
    for path in folder.paths:
        path.unlink()
    assert [int(folder.image(n)[0, 0, 0]) for n in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match=r"b\.1\.png: no such file"):
        folder.image(3)
    with pytest.raises(ValueError, match="read-only"):
        folder.image(0)[:] = 9


def test_deeper_folders_other_suffixes_and_other_files(tmp_path: Path) -> None:
    write_classes(tmp_path, a=1, b=1)
    write_image(tmp_path / "a/deeper/x.PNG", 50)
    write_image(tmp_path / "a/deeper/still/x.jpeg", 51)
    write_image(tmp_path / "a/._hidden.png")
    write_image(tmp_path / "a/.git/x.png")
    write_image(tmp_path / "__MACOSX/a/x.png")
    write_image(tmp_path / "beside.png")
    (tmp_path / "a/notes.txt").write_text("no image")
    (tmp_path / "b/Thumbs.db").touch()
    folder = ImageFolder(tmp_path)
    assert folder.classes == ["a", "b"]
    assert values(folder) == [0, 51, 50, 1]  # a.0.png, deeper/still/..., deeper/x.PNG
    assert folder.ignored == 4
    assert folder.report() == (
        f"{tmp_path}: 4 images in 2 classes (a 3, b 1); 4 other files ignored"
    )


# Links


def test_a_loop_of_folders_counts_each_image_once(tmp_path: Path) -> None:
    write_classes(tmp_path / "root", a=2, b=1)
    (tmp_path / "root/a/again").symlink_to(tmp_path / "root/a")
    (tmp_path / "root/a/up").symlink_to(tmp_path / "root")
    (tmp_path / "root/b/top").symlink_to(tmp_path)
    (tmp_path / "root/b/across").symlink_to(tmp_path / "root/a")
    (tmp_path / "root/b/self").symlink_to(tmp_path / "root/b/self")
    assert values(ImageFolder(tmp_path / "root")) == [0, 1, 2]


def test_a_link_to_a_counted_image_is_ignored(tmp_path: Path) -> None:
    write_classes(tmp_path, a=1, b=1)
    (tmp_path / "a/z.png").symlink_to(tmp_path / "a/a.0.png")
    (tmp_path / "b/z.png").symlink_to("../a/a.0.png")
    folder = ImageFolder(tmp_path)
    assert values(folder) == [0, 1]
    assert folder.ignored == 2


def test_linked_classes_and_images_are_read(tmp_path: Path) -> None:
    write_classes(tmp_path / "elsewhere", cats=2, dogs=1)
    (tmp_path / "root/dogs").mkdir(parents=True)
    (tmp_path / "root/cats").symlink_to(tmp_path / "elsewhere/cats")
    (tmp_path / "root/dogs/1.png").symlink_to(tmp_path / "elsewhere/dogs/dogs.0.png")
    folder = ImageFolder(tmp_path / "root")
    assert values(folder) == [0, 1, 2]
    assert folder.labels.tolist() == [0, 0, 1]


def test_a_link_to_nowhere_is_an_unreadable_image(tmp_path: Path) -> None:
    write_classes(tmp_path, a=1, b=1)
    (tmp_path / "a/z.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"z\.png: no such file"):
        ImageFolder(tmp_path)


# Unreadable images


def damage(root: Path) -> None:
    write_classes(root, cats=4, dogs=3)
    (root / "cats/cats.1.png").write_text("a text file")
    truncated = root / "dogs/dogs.0.png"
    truncated.write_bytes(truncated.read_bytes()[:40])
    (root / "dogs/dogs.2.png").write_bytes(b"")


def test_stop_raises_one_error_that_lists_them(tmp_path: Path) -> None:
    damage(tmp_path)
    with pytest.raises(DataError) as caught:
        ImageFolder(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: 3 of 7 images cannot be read (--on-error skip")
    lines = message.splitlines()[1:]
    assert [line.split(": ")[0].strip() for line in lines] == [
        str(tmp_path / name) for name in ("cats/cats.1.png", "dogs/dogs.0.png", "dogs/dogs.2.png")
    ]
    assert "the file is empty" in lines[2]


def test_stop_names_ten_and_counts_the_rest(tmp_path: Path) -> None:
    write_classes(tmp_path, a=15, b=2)
    for n in range(14):
        (tmp_path / f"a/a.{n}.png").write_text("text")
    with pytest.raises(DataError, match="14 of 17") as caught:
        ImageFolder(tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 12
    assert lines[-1] == "  and 4 more"


@pytest.mark.parametrize("cache_bytes", [0, 3 * 144, 2**20])
def test_skip_leaves_them_out_and_says_so(tmp_path: Path, cache_bytes: int) -> None:
    damage(tmp_path)
    folder = ImageFolder(tmp_path, on_error="skip", cache_bytes=cache_bytes)
    assert values(folder) == [0, 2, 3, 5]
    assert folder.labels.tolist() == [0, 0, 0, 1]
    assert [path.name for path in folder.paths] == [folder.name(n) for n in range(4)]
    assert [path.name for path, _ in folder.skipped] == ["cats.1.png", "dogs.0.png", "dogs.2.png"]
    assert folder.skipped[2][1] == "the file is empty (0 bytes)"
    first, *bad = folder.report().splitlines()
    assert first.endswith("; 3 unreadable skipped:")
    assert [line.split(": ")[0].strip() for line in bad] == [str(p) for p, _ in folder.skipped]


def test_skipping_a_whole_class_is_an_error(tmp_path: Path) -> None:
    write_classes(tmp_path, a=2, b=1)
    (tmp_path / "b/b.0.png").write_text("text")
    with pytest.raises(DataError, match=r"b: none of the images of this class.*b\.0\.png: not a"):
        ImageFolder(tmp_path, on_error="skip")


# Layouts that are none


def test_a_missing_folder_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        ImageFolder(tmp_path / "nowhere")
    write_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: is a file; expected a folder"):
        ImageFolder(tmp_path / "a.png")


def test_no_class_folders(tmp_path: Path) -> None:
    write_image(tmp_path / "cat.1.png")
    write_image(tmp_path / "dog.1.png")
    (tmp_path / "list.csv").touch()
    (tmp_path / ".cache").mkdir()
    with pytest.raises(DataError, match=r"no class folders \(found 2 images and 1 other files"):
        ImageFolder(tmp_path)


def test_a_single_class(tmp_path: Path) -> None:
    write_classes(tmp_path, cats=2)
    with pytest.raises(DataError, match=r"a single class, 'cats'.*expected one folder per class"):
        ImageFolder(tmp_path)


def test_an_empty_class(tmp_path: Path) -> None:
    write_classes(tmp_path, cats=2, dogs=0)
    (tmp_path / "dogs/readme.txt").touch()
    with pytest.raises(DataError, match=r"dogs: a class folder without images.*found 1 other"):
        ImageFolder(tmp_path)


def test_the_parts_of_a_data_set_are_no_classes(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", cats=1, dogs=1)
    write_classes(tmp_path / "test", cats=1, dogs=1)
    with pytest.raises(DataError, match=r"holds the parts of a data set \(test, train\)"):
        ImageFolder(tmp_path)


def test_on_error_has_two_values(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="on_error is 'ignore'; expected 'stop' or 'skip'"):
        ImageFolder(tmp_path, on_error="ignore")  # type: ignore[arg-type]


# Training and test parts


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set", "test_set"),
        ("train", "test"),
        ("train", "validation"),
        ("Train", "Val"),
        ("training_set/training_set", "test_set/test_set"),
        ("dataset/training_set", "dataset/test_set"),
        ("dogs vs cats/dataset/train", "dogs vs cats/dataset/test"),
    ],
)
def test_find_splits(tmp_path: Path, train: str, test: str) -> None:
    write_classes(tmp_path / train, cats=1, dogs=1)
    write_classes(tmp_path / test, cats=1, dogs=1)
    write_image(tmp_path / "sample.png")
    assert find_splits(tmp_path) == (tmp_path / train, tmp_path / test)


def test_find_splits_prefers_test_to_validation(tmp_path: Path) -> None:
    for name in ("train", "validation", "test"):
        write_classes(tmp_path / name, cats=1, dogs=1)
    assert find_splits(tmp_path) == (tmp_path / "train", tmp_path / "test")


def test_find_splits_without_parts(tmp_path: Path) -> None:
    write_classes(tmp_path / "plain", cats=1, dogs=1)
    assert find_splits(tmp_path / "plain") == (tmp_path / "plain", None)
    write_classes(tmp_path / "only/training_set", cats=1, dogs=1)
    assert find_splits(tmp_path / "only") == (tmp_path / "only/training_set", None)
    write_classes(tmp_path / "vehicles", bus=1, car=1, train=1)
    assert find_splits(tmp_path / "vehicles") == (tmp_path / "vehicles", None)
    write_classes(tmp_path / "single", cats=1)
    assert find_splits(tmp_path / "single") == (tmp_path / "single", None)


def test_find_splits_ends_in_a_loop_and_without_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/a").symlink_to(tmp_path)
    find_splits(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_splits(tmp_path / "nowhere")


def test_list_images(tmp_path: Path) -> None:
    write_classes(tmp_path, a=11, b=1)
    write_image(tmp_path / "0.png")
    (tmp_path / "b/notes.txt").touch()
    (tmp_path / "b/loop").symlink_to(tmp_path)
    (tmp_path / "b/z.png").symlink_to(tmp_path / "0.png")
    names = ["0.png", *(f"a.{n}.png" for n in range(11)), "b.0.png"]
    assert [path.name for path in list_images(tmp_path)] == names


# The progress bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_bar_for_many_images_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    for name in ("a", "b"):
        first = write_image(tmp_path / name / "0.png", size=(1, 1))
        for n in range(1, 500):
            (tmp_path / name / f"{n}.png").hardlink_to(first)
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert len(ImageFolder(tmp_path)) == 1000
    assert ("Reading" in stream.getvalue()) == terminal
