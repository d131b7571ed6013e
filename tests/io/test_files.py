"""Atomic writing: the file is the new one or the old one, never half of either."""

import errno
import os
import subprocess
import sys
import textwrap

import pytest

from tinyconv.errors import DataError
from tinyconv.io.files import atomic_write, remove_leftovers


def test_writes_a_new_file_and_replaces_an_old_one(tmp_path):
    path = tmp_path / "file.bin"
    atomic_write(path, b"one")
    atomic_write(path, b"two, longer")
    assert path.read_bytes() == b"two, longer"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    atomic_write(tmp_path / "a", b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_follows_a_link(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, call):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(DataError, match="No space left on device") as caught:
        atomic_write(path, b"new")
    assert str(caught.value).startswith(f"{path}: ")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_write_that_the_system_cuts_short(tmp_path):
    # The limit makes the kernel write 8192 bytes and refuse the rest, as on a disk that fills up.
    program = textwrap.dedent("""
        import resource, sys
        from tinyconv.errors import DataError
        from tinyconv.io.files import atomic_write
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        try:
            atomic_write(sys.argv[1], bytes(100_000))
        except DataError as error:
            print(error)
    """)
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", program, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == f"{path}: could not be written: File too large\n"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_an_interrupt_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "file.bin", b"new")
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_and_a_folder_in_the_way(tmp_path):
    with pytest.raises(DataError, match="No such file or directory"):
        atomic_write(tmp_path / "none" / "file.bin", b"x")
    (tmp_path / "taken").mkdir()
    with pytest.raises(DataError, match="Is a directory"):
        atomic_write(tmp_path / "taken", b"x")
    assert os.listdir(tmp_path) == ["taken"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DataError, match="Permission denied"):
            atomic_write(tmp_path / "file.bin", b"x")
    finally:
        tmp_path.chmod(0o700)


def test_a_read_only_file_system(tmp_path, monkeypatch):
    def refused(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("builtins.open", refused)
    with pytest.raises(DataError, match="Read-only file system"):
        atomic_write(tmp_path / "file.bin", b"x")


def test_leftovers_of_killed_programs_are_removed_and_nothing_else(tmp_path):
    for name in (".a.bin.0123abcd.tmp", ".b.bin.0123abcd.tmp", "a.bin", ".a.bin.tmp", "[a].bin"):
        (tmp_path / name).write_bytes(b"x")
    remove_leftovers(tmp_path / "a.bin")
    assert sorted(os.listdir(tmp_path)) == [
        ".a.bin.tmp",
        ".b.bin.0123abcd.tmp",
        "[a].bin",
        "a.bin",
    ]
