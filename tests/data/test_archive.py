"""Archives that try to write where they should not, and some that do not."""

from __future__ import annotations

import contextlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from tinyconv.data.archive import unpack
from tinyconv.errors import DataError

LINK = 0o120777 << 16
DEVICE = 0o060666 << 16


def tar_of(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return path


def zip_of(path: Path, *members: tuple[str, bytes] | tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, *mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode[0] if mode else 0
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_files_and_folders(tmp_path: Path, make) -> None:
    archive = make(tmp_path / "told by content", ("a.txt", b"a"), ("b/c/d.txt", b"d"), ("e", b""))
    unpack(archive, tmp_path / "out")
    assert files(tmp_path / "out") == {"a.txt": b"a", "b/c/d.txt": b"d", "e": b""}


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_place_renames_and_leaves_out(tmp_path: Path, make) -> None:
    archive = make(tmp_path / "a", ("x/1.jpg", b"1"), ("x/2.jpg", b"2"), ("readme", b"r"))
    unpack(archive, tmp_path / "out", lambda name: f"y/{name[2:]}" if name != "readme" else None)
    assert files(tmp_path / "out") == {"y/1.jpg": b"1", "y/2.jpg": b"2"}


def test_modes_of_members_are_not_taken_over(tmp_path: Path) -> None:
    unpack(zip_of(tmp_path / "a.zip", ("run.sh", b"", 0o104777 << 16)), tmp_path / "out")
    assert (tmp_path / "out" / "run.sh").stat().st_mode & 0o7111 == 0


BAD_NAMES = [
    "../evil",
    "good/../../evil",
    "..",
    "/evil",
    "//server/evil",
    "C:evil",
    "C:/evil",
    "..\\evil",
    "\\evil",
    "good\\evil",
]


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_lead_elsewhere(tmp_path: Path, make, wanted: bool, name: str) -> None:
    out = tmp_path / "deep" / "out"
    archive = make(tmp_path / "a", ("good.txt", b"good"), (name, b"evil"))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="is refused") as error:
        unpack(archive, out, lambda n: n if wanted or n == "good.txt" else None)
    assert repr(name) in str(error.value)
    assert set(tmp_path.rglob("*")) - before == {out.parent, out, out / "good.txt"}
    assert not Path("/evil").exists()


@pytest.mark.parametrize(
    "member",
    [
        special("link", tarfile.SYMTYPE, "/etc"),
        special("link", tarfile.SYMTYPE, "good.txt"),
        special("link", tarfile.LNKTYPE, "../../secret"),
        special("link", tarfile.CHRTYPE),
        special("link", tarfile.BLKTYPE),
        special("link", tarfile.FIFOTYPE),
        special("link", tarfile.GNUTYPE_SPARSE),
    ],
    ids=lambda m: f"{m.type!r} {m.linkname}",
)
def test_tar_members_that_are_no_files(tmp_path: Path, member: tarfile.TarInfo) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", member, ("link/evil", b"evil"))
    with pytest.raises(DataError, match=r"member 'link' is refused: (a link|neither)"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", [LINK, DEVICE])
def test_zip_members_that_are_no_files(tmp_path: Path, mode: int) -> None:
    archive = zip_of(tmp_path / "a.zip", ("link", b"/etc", mode), ("link/evil", b"evil"))
    with pytest.raises(DataError, match=r"member 'link' is refused: (a link|neither)"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_absurd_sizes(tmp_path: Path, make) -> None:
    archive = make(tmp_path / "a", ("small", b"1"), ("huge", bytes(10**6)), ("later", b"2"))
    assert archive.stat().st_size < 10_000
    with pytest.raises(DataError, match=r"member 'huge' is refused: too large.*1,000,001"):
        unpack(archive, tmp_path / "out", max_bytes=999_999)
    assert files(tmp_path / "out") == {"small": b"1"}
    unpack(archive, tmp_path / "all", max_bytes=1_000_002)


def test_a_zip_that_claims_less_than_it_holds(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", ("bomb", bytes(10**6)))
    size = (10**6).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(DataError, match="damaged"):
        unpack(archive, tmp_path / "out", max_bytes=100)
    assert (tmp_path / "out" / "bomb").stat().st_size <= 10


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice(tmp_path: Path, make) -> None:
    archive = make(tmp_path / "a", ("x", b"first"), ("x", b"second"))
    with pytest.raises(DataError, match="comes twice"):
        unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "x").read_bytes() == b"first"


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize("first", ["x", "x/y"])
def test_a_name_that_is_file_and_folder(tmp_path: Path, make, first: str) -> None:
    second = {"x": "x/y", "x/y": "x"}[first]
    with pytest.raises(DataError, match=r"a: (not unpacked|.* comes twice)"):
        unpack(make(tmp_path / "a", (first, b"1"), (second, b"2")), tmp_path / "out")


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_truncated_archive_is_an_error_or_still_whole(tmp_path: Path, make) -> None:
    members = ("a/b.bin", bytes(range(256)) * 20), ("c", b"c")
    whole = make(tmp_path / "whole", *members).read_bytes()
    cut, whole_ones = tmp_path / "cut", 0
    for length in range(0, len(whole), 7):
        cut.write_bytes(whole[:length])
        with contextlib.suppress(DataError):
            unpack(cut, tmp_path / str(length))
            # No error: a tar file ends with blocks of zeros that nobody misses.
            assert files(tmp_path / str(length)) == dict(members)
            whole_ones += 1
    assert whole_ones < 5


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, 99])
def test_a_zip_compressed_in_another_way(tmp_path: Path, method: int) -> None:
    archive = zip_of(tmp_path / "a.zip", ("good.txt", b"good"), ("odd.bin", bytes(9)))
    data = bytearray(archive.read_bytes())
    data[data.rindex(b"PK\1\2") + 10] = method  # in the directory; its bytes are no LZMA
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"member 'odd\.bin' is refused: compressed by something"):
        unpack(archive, tmp_path / "out")


def test_an_encrypted_zip(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", ("secret", b"secret"))
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # in the header of the member
    data[data.index(b"PK\1\2") + 8] |= 1  # and in the directory
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"damaged or unknown archive: .*encrypted"):
        unpack(archive, tmp_path / "out")
