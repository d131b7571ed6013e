"""Arrays and metadata in a safetensors file; every kind of wrong file ends in one clear error."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from tinyconv.errors import DataError
from tinyconv.io.tensor_file import first_differences, read_tensors, write_tensors

ARRAYS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "double": np.array([1e300, -0.0]),
    "count": np.array(5),
    "state": np.array([2**64 - 1], dtype=np.uint64),
    "image": np.arange(4, dtype=np.uint8),
    "mask": np.array([True, False]),
    "none": np.zeros((0, 3), dtype=np.float32),
}
METADATA = {"name": "Katze ü", "rows": [1, 2.5, None, True], "nested": {"a": [0.1]}}


def refuse(path, *words):
    """The message of the DataError that reading `path` raises; it must hold all `words`."""
    with pytest.raises(DataError) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.safetensors"


def test_round_trip(path):
    write_tensors(path, ARRAYS, METADATA)
    arrays, metadata = read_tensors(path)
    assert metadata == METADATA
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes()


def test_the_library_alone_reads_it(path):
    write_tensors(path, ARRAYS, METADATA)
    np.testing.assert_array_equal(
        safetensors.numpy.load_file(path)["weight"], ARRAYS["weight"], strict=True
    )


def test_views_are_written_as_they_are_seen(path):
    square = np.arange(12.0).reshape(3, 4)
    views = {
        "transposed": square.T,
        "every second": square[:, ::2],
        "big endian": square.astype(">f8"),
    }
    write_tensors(path, views, {})
    arrays, _ = read_tensors(path)
    for name, view in views.items():
        np.testing.assert_array_equal(arrays[name], view)


def test_a_file_of_another_program_has_no_metadata(path):
    safetensors.numpy.save_file({"a": np.ones(2)}, path, metadata={"format": "pt"})
    arrays, metadata = read_tensors(path)
    assert metadata is None
    assert arrays["a"].tolist() == [1, 1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_and_infinity_are_refused_both_ways(path, value, dtype):
    bad = {"fine": np.ones(2), "layer.weight": np.array([1, value], dtype)}
    with pytest.raises(DataError, match=r"not written: layer\.weight holds NaN or infinity"):
        write_tensors(path, bad, {})
    assert not path.exists()
    safetensors.numpy.save_file(bad, path)
    refuse(path, "layer.weight holds NaN or infinity")


def test_other_dtypes_are_refused_both_ways(path):
    with pytest.raises(DataError, match="half has dtype float16"):
        write_tensors(path, {"half": np.ones(2, np.float16)}, {})
    safetensors.numpy.save_file({"half": np.ones(2, np.float16)}, path)
    refuse(path, "half has dtype F16", "expected one of F64, F32")


def raw(header, data=b""):
    """The bytes of a safetensors file with this header (its format is documented)."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "C64"])
def test_dtypes_that_numpy_lacks(path, dtype):
    size = {"BF16": 2, "F8_E4M3": 1, "C64": 8}[dtype]
    path.write_bytes(
        raw({"w": {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}}, bytes(size))
    )
    refuse(path, f"w has dtype {dtype}")


def test_every_truncation_is_refused(path):
    write_tensors(path, ARRAYS, METADATA)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refuse(path)


def test_a_flipped_bit_in_any_byte_is_refused(path):
    write_tensors(path, {"a": np.ones(3, np.float32)}, {"b": 1})
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            arrays, metadata = read_tensors(path)
        except DataError:
            continue
        # What may be read is a file whose metadata has lost its name (then it is of another
        # program), or one in which a blank has changed that means nothing.
        assert metadata in (None, {"b": 1})
        assert metadata is None or arrays["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"PK\x03", "3 bytes, too short for any known format"),
        (os.urandom(500), "not a whole safetensors file"),
        (b"hello, this is a text file\n" * 20, "not a whole safetensors file"),
        (pickle.dumps({"weight": [1.0, 2.0]}), "pickle"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"\x93NUMPY\x01\x00" + bytes(100), ".npy"),
    ],
    ids=["empty", "short", "random", "text", "pickle", "hdf5", "npy"],
)
def test_other_files(path, content, word):
    path.write_bytes(content)
    refuse(path, word)


def test_a_pickle_is_never_run(path):
    class Harmful:
        def __reduce__(self):
            return (os.mkdir, (str(path.parent / "harmed"),))

    path.write_bytes(pickle.dumps(Harmful()))
    refuse(path, "pickle")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Harmful()))
    refuse(path, "zip archive", ".pth")
    assert not (path.parent / "harmed").exists()


def test_a_header_that_begins_like_a_pickle_is_read(path):
    for width in range(2000):  # until the header's length is 0x0480 bytes: b"\x80\x04"
        about = {"tinyconv.note": "x" * width}
        data = safetensors.numpy.save({"a": np.ones(1)}, metadata=about)
        if data.startswith(b"\x80\x04"):
            break
    path.write_bytes(data)
    assert read_tensors(path)[0]["a"].tolist() == [1]
    path.write_bytes(data[:-1])
    refuse(path, "not a whole safetensors file")


def test_paths_that_are_no_file(tmp_path):
    refuse(tmp_path / "none.safetensors", "no such file")
    refuse(tmp_path, "not a file")
    os.mkfifo(tmp_path / "pipe")
    refuse(tmp_path / "pipe", "not a file")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(path):
    write_tensors(path, ARRAYS, {})
    path.chmod(0)
    refuse(path, "Permission denied")


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        raw({"a": F32}, bytes(7)),
        raw({"a": F32}, bytes(9)),
        raw({"a": {**F32, "shape": [3]}}, bytes(8)),
        raw({"a": {**F32, "shape": [-2]}}, bytes(8)),
        raw({"a": {**F32, "shape": [2**62, 4]}}, bytes(8)),
        raw({"a": {**F32, "shape": [0, 2**63]}}, bytes(8)),
        raw({"a": {**F32, "data_offsets": [4, 12]}}, bytes(12)),
        raw({"a": {**F32, "data_offsets": [8, 0]}}, bytes(8)),
        raw({"a": {**F32, "dtype": "F99"}}, bytes(8)),
        raw({"a": F32, "b": F32}, bytes(8)),
        raw({"a": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}}),
        raw({"a": [1, 2]}, bytes(8)),
        raw([1, 2]),
        raw(b"{" * 5000),
        raw(b'{"a": '),
        raw(b"\xff\xfe{}"),
        (2**63).to_bytes(8, "little") + b"{}",
        (10**9).to_bytes(8, "little") + b"{}",
        raw({"__metadata__": {"tinyconv": 5}}),
        raw({"__metadata__": {"tinyconv": "{}"}}),
        raw({"__metadata__": {"tinyconv": "{}", "tinyconv.crc32": "00000000"}}),
    ],
    ids=lambda content: str(content[8:60]),
)
def test_malformed_headers(path, content):
    path.write_bytes(content)
    refuse(path)


@pytest.mark.parametrize("text", ["", "{", "nan", '{"a": 1}}', "[1]", "3", "null", "[" * 100_000])
def test_metadata_that_is_no_dictionary(path, text, monkeypatch):
    monkeypatch.setattr(json, "dumps", lambda value: text)
    write_tensors(path, {"a": np.ones(1)}, {})
    monkeypatch.undo()
    refuse(path, "metadata is")


def test_first_differences():
    one, two = np.ones((2, 3), np.float32), np.ones(3, np.float64)
    assert first_differences({"a": one}, {"a": one + 1}) == ""
    words = first_differences({"a": one, "b": one, "d": two}, {"a": two, "b": one, "c": two})
    assert words == (
        "missing: c float64[3]; unexpected: d float64[3]; a is float32[2, 3], expected float64[3]"
    )
    many = first_differences({}, {f"w{i}": one for i in range(9)})
    assert many.endswith("missing: w4 float32[2, 3]; and 4 more")
