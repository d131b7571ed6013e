"""PyTorch's files without PyTorch: written here byte by byte, and hostile ones that must not run.

That PyTorch's own files are read is tested in tests/parity/test_weights.py and at the end of this
file, where PyTorch is installed.
"""

import builtins
import collections
import importlib
import os
import pickle
import struct
import types
import zipfile
from io import BytesIO

import numpy as np
import pytest

from tinyconv.errors import DataError
from tinyconv.io import read_pth
from tinyconv.io.restricted_pickle import Refused, unpickle

MAGIC = 0x1950A86A20F9469CFC6C


# Files as PyTorch writes them ---------------------------------------------------------------------


class Storage:
    """Pickled as PyTorch does a storage: by a persistent id, its numbers elsewhere."""

    def __init__(self, kind, numbers):
        self.kind, self.numbers = kind, numbers


def stub(module, name):
    """A function that is pickled as `module.name`."""
    function = types.FunctionType((lambda *_: None).__code__, {}, name)
    function.__module__, function.__qualname__ = module, name
    return function


REBUILD = stub("torch._utils", "_rebuild_tensor_v2")
PARAMETER = stub("torch._utils", "_rebuild_parameter")


class Call:
    """Pickled as the call function(*arguments)."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def tensor(storage, size, stride, offset=0):
    return Call(REBUILD, storage, offset, size, stride, False, collections.OrderedDict())


def whole(kind, array):
    """A tensor over a storage of its own."""
    strides = tuple(step // array.itemsize for step in array.strides)
    return tensor(Storage(kind, array.reshape(-1)), array.shape, strides)


class Pickler(pickle._Pickler):
    """Python's pickler in Python, which takes a stub for the function whose name it bears."""

    def __init__(self, file, protocol, legacy):
        super().__init__(file, protocol)
        self.legacy, self.storages = legacy, {}

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        key = self.storages.setdefault(value, str(len(self.storages)))
        kind = stub("torch", value.kind)
        view = (None,) if self.legacy else ()
        return ("storage", kind, key, "cpu", len(value.numbers), *view)

    def save_global(self, value, name=None):
        module, name = value.__module__, value.__qualname__
        if self.proto >= 4:
            self.save(module), self.save(name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        self.memoize(value)

    dispatch = pickle._Pickler.dispatch | {types.FunctionType: save_global, type: save_global}


def zip_file(path, content, protocol=2, byteorder=b"little", compression=zipfile.ZIP_STORED):
    """`content` as torch.save writes it since PyTorch 1.6."""
    data = BytesIO()
    pickler = Pickler(data, protocol, legacy=False)
    pickler.dump(content)
    write_zip(path, data.getvalue(), pickler.storages, byteorder, compression)


def write_zip(path, data, storages, byteorder=b"little", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        if byteorder:
            archive.writestr("archive/byteorder", byteorder)
        for storage, key in storages.items():
            archive.writestr(f"archive/data/{key}", storage.numbers.tobytes())
        archive.writestr("archive/version", b"3\n")


def legacy_file(path, content, protocol=2, little_endian=True):
    """`content` as PyTorch wrote it before, and still does on request."""
    data = BytesIO()
    pickler = Pickler(data, protocol, legacy=True)
    pickler.dump(content)
    with open(path, "wb") as file:
        system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {}}
        for value in (MAGIC, 1001, system):
            pickle.dump(value, file, protocol=2)
        file.write(data.getvalue())
        pickle.dump(list(pickler.storages.values()), file, protocol=2)
        for storage in pickler.storages:
            file.write(struct.pack("<q" if little_endian else ">q", len(storage.numbers)))
            file.write(storage.numbers.tobytes())


FORMATS = {"zip": zip_file, "legacy": legacy_file}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


@pytest.fixture(params=FORMATS)
def write(request, path):
    return lambda content, **settings: FORMATS[request.param](path, content, **settings)


def refuse(path, *words):
    """The one line of the DataError that reading `path` raises; it must hold all `words`."""
    with pytest.raises(DataError) as caught:
        read_pth(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


# What is read -------------------------------------------------------------------------------------

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
COUNT = np.array(5)
STATE = {"conv.weight": WEIGHT, "bn.num_batches_tracked": COUNT}


def state_dict():
    """As PyTorch's: an OrderedDict with an attribute."""
    state = collections.OrderedDict(
        {"conv.weight": whole("FloatStorage", WEIGHT), "bn.num_batches_tracked": tensor(
            Storage("LongStorage", COUNT.reshape(1)), (), ())}
    )  # fmt: skip
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    return state


def same(arrays, expected):
    assert list(arrays) == list(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(arrays[key], array, key, strict=True)
        assert arrays[key].flags.writeable
        assert arrays[key].flags.c_contiguous


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_state_dict(write, path, protocol):
    write(state_dict(), protocol=protocol)
    same(read_pth(path), STATE)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("DoubleStorage", "f8"), ("FloatStorage", "f4"), ("LongStorage", "i8"),
        ("IntStorage", "i4"), ("ShortStorage", "i2"), ("CharStorage", "i1"),
        ("ByteStorage", "u1"), ("BoolStorage", "?"),
    ],
)  # fmt: skip
def test_dtypes(write, path, kind, dtype):
    array = np.array([[0, 1], [1, 100]]).astype(dtype)
    write({"a": whole(kind, array)})
    same(read_pth(path), {"a": array})


def test_half_becomes_float32(write, path):
    array = np.array([0.5, -65504, 6e-8, 0], np.float16)
    write({"a": whole("HalfStorage", array)})
    same(read_pth(path), {"a": array.astype(np.float32)})


def test_bfloat16_becomes_float32(write, path):
    # sign, 8 bits of exponent, 7 of fraction: 1, -2, 3.140625, the smallest normal number
    bits = np.array([0x3F80, 0xC000, 0x4049, 0x0080], np.uint16)
    write({"a": whole("BFloat16Storage", bits)})
    same(read_pth(path), {"a": np.array([1, -2, 3.140625, 2.0**-126], np.float32)})


def test_views_of_one_storage(write, path):
    numbers = np.arange(24, dtype=np.float64)
    storage = Storage("DoubleStorage", numbers)
    write(
        {
            "all": tensor(storage, (2, 3, 4), (12, 4, 1)),
            "transposed": tensor(storage, (4, 6), (1, 4)),
            "part": tensor(storage, (2, 2), (8, 3), offset=5),
            "expanded": tensor(storage, (3, 2), (0, 1), offset=22),
            "number": tensor(storage, (), (), offset=23),
            "empty": tensor(storage, (0, 3), (3, 1), offset=24),
        }
    )
    expected = {
        "all": numbers.reshape(2, 3, 4),
        "transposed": numbers.reshape(6, 4).T,
        "part": np.array([[5.0, 8], [13, 16]]),
        "expanded": np.array([[22.0, 23]] * 3),
        "number": np.array(23.0),
        "empty": np.empty((0, 3)),
    }
    same(read_pth(path), expected)


def test_parameters(write, path):
    held = whole("FloatStorage", WEIGHT)
    write({"a": Call(PARAMETER, held, True, collections.OrderedDict())})
    same(read_pth(path), {"a": WEIGHT})


def test_parameters_before_0_4(write, path):
    """An object of the class Parameter with a state, around a tensor without hooks."""

    class Parameter:
        __slots__ = ()

        def __reduce__(self):
            first = stub("torch._utils", "_rebuild_tensor")
            storage = Storage("FloatStorage", WEIGHT.reshape(-1))
            held = Call(first, storage, 0, (2, 3), (3, 1))
            cls = stub("torch.nn.parameter", "Parameter")
            return cls, (held,), (True, False, collections.OrderedDict())

    write({"a": Parameter()})
    same(read_pth(path), {"a": WEIGHT})


def test_big_endian(path):
    swapped = {"a": whole("FloatStorage", WEIGHT.astype(">f4"))}
    zip_file(path, swapped, byteorder=b"big")
    same(read_pth(path), {"a": WEIGHT})
    legacy_file(path, swapped, little_endian=False)
    same(read_pth(path), {"a": WEIGHT})


def test_no_byteorder_means_little(path):
    zip_file(path, state_dict(), byteorder=None)
    same(read_pth(path), STATE)


@pytest.mark.parametrize("name", ["state_dict", "model", "anything"])
def test_checkpoint_with_one_state_dict(write, path, name):
    moments = {"exp_avg": whole("FloatStorage", WEIGHT), "step": 7}
    optimizer = {"state": {0: moments}, "param_groups": [{"lr": 0.1, "params": [0], "fused": None}]}
    write({"epoch": 3, name: state_dict(), "optimizer": optimizer, "best": (0.5, True)})
    same(read_pth(path), STATE)


def test_checkpoint_with_two_or_none(write, path):
    write({"model": state_dict(), "ema": state_dict()})
    refuse(path, "2 state dictionaries (model, ema)", "expected one")
    write({"epoch": 3, "log": ["a"]})
    refuse(path, "no dictionary of tensors", "epoch: int, log: list")
    write({"conv.weight": whole("FloatStorage", WEIGHT), "epoch": 3})
    refuse(path, "conv.weight: tensor, epoch: int")
    write([whole("FloatStorage", WEIGHT)])
    refuse(path, "holds a list, expected a state dictionary")


# Damaged and other files --------------------------------------------------------------------------


def test_files_of_another_kind(path):
    refuse(path, "No such file")
    path.mkdir()
    refuse(path, "Is a directory")
    path.rmdir()
    path.write_bytes(b"")
    refuse(path, "not a PyTorch file")
    path.write_bytes(b"weights")
    refuse(path, "not a PyTorch file")
    path.write_bytes(pickle.dumps({"a": 1}))
    refuse(path, "a pickle, but not one of PyTorch's")
    np.savez(path.with_suffix(".npz"), a=WEIGHT)
    refuse(path.with_suffix(".npz"), "not PyTorch's zip archive", "no data.pkl")


def test_cut_anywhere(write, path):
    write(state_dict())
    data = path.read_bytes()
    for end in range(0, len(data) - 1, 11):
        path.write_bytes(data[:end])
        refuse(path)


def test_a_flipped_bit_in_a_storage_of_an_archive(path):
    zip_file(path, state_dict())
    data = bytearray(path.read_bytes())
    data[data.index(WEIGHT.tobytes()) + 5] ^= 1
    path.write_bytes(data)
    refuse(path, "damaged zip archive", "CRC")


def test_nan(write, path):
    write({"a": whole("FloatStorage", np.array([1, np.nan], np.float32))})
    refuse(path, "a holds NaN or infinity")


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((7,), (1,), 0), ((2, 3), (3, 2), 0), ((6,), (1,), 1), ((1,), (1,), 6), ((), (), 6),
        ((2**40, 2**40), (2**40, 1), 0), ((2,), (2**61,), 0),
    ],
)  # fmt: skip
def test_a_tensor_past_its_storage(write, path, size, stride, offset):
    write({"a": tensor(Storage("FloatStorage", WEIGHT.reshape(-1)), size, stride, offset)})
    refuse(path, "past the 6 numbers of its storage")


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((-1,), (1,), 0), ((2,), (-1,), 3), ((2,), (1,), -1), ((2,), (), 0), ((2.0,), (1,), 0),
        ([2], [1], 0), ((True,), (1,), 0), ((2**70,), (0,), 0), ((1,) * 33, (1,) * 33, 0),
        ("2", "1", 0),
    ],
)  # fmt: skip
def test_a_tensor_that_is_none(write, path, size, stride, offset):
    write({"a": tensor(Storage("FloatStorage", WEIGHT.reshape(-1)), size, stride, offset)})
    refuse(path, "without a valid storage, offset, size or stride")


def test_a_tensor_without_a_storage(write, path):
    write({"a": tensor("storage", (2,), (1,))})
    refuse(path, "without a valid storage")
    write({"a": Call(PARAMETER, "no tensor")})
    refuse(path, "a parameter that holds no tensor")


def test_small_files_can_not_claim_much_memory(write, path):
    storage = Storage("FloatStorage", WEIGHT.reshape(-1))
    write({"a": tensor(storage, (2**20, 2**20), (0, 0))})
    refuse(path, "far more numbers than")
    numbers = Storage("FloatStorage", np.zeros(2**16, np.float32))
    write({str(i): tensor(numbers, (2**16 - i,), (1,), i) for i in range(2000)})
    refuse(path, "far more numbers than")


def test_storages_that_do_not_fit_their_claim(path):
    numbers = Storage("FloatStorage", WEIGHT.reshape(-1))
    data = BytesIO()
    pickler = Pickler(data, 2, legacy=False)
    pickler.dump({"a": tensor(numbers, (2,), (1,))})
    write_zip(path, data.getvalue(), {Storage("", WEIGHT[0]): "0"})
    refuse(path, "storage '0' has 12 bytes, expected 6 of float32")
    write_zip(path, data.getvalue(), {})
    refuse(path, "storage '0' is missing")
    legacy_file(path, {"a": tensor(numbers, (2,), (1,))})
    whole_file = path.read_bytes()
    path.write_bytes(whole_file.replace(struct.pack("<q", 6), struct.pack("<q", 2**60)))
    refuse(path, "cut short at storage '0'")
    path.write_bytes(whole_file[:-1])
    refuse(path, "cut short")


def test_one_storage_with_two_sizes(path):
    class Reference(Storage):
        pass

    class Doubled(Pickler):
        def persistent_id(self, value):
            if not isinstance(value, Reference):
                return None
            return "storage", stub("torch", value.kind), "0", "cpu", len(value.numbers)

    data = BytesIO()
    storages = [Reference("FloatStorage", np.zeros(n, np.float32)) for n in (2, 4)]
    Doubled(data, 2, legacy=False).dump([tensor(s, (2,), (1,)) for s in storages])
    write_zip(path, data.getvalue(), {})
    refuse(path, "storage '0' has two dtypes or sizes")


def test_compressed_members_are_refused(path):
    bomb = whole("FloatStorage", np.zeros(10**6, np.float32))
    zip_file(path, {"a": bomb}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    refuse(path, "compressed members")


# Hostile pickles ----------------------------------------------------------------------------------


class Reduced:
    def __init__(self, *value):
        self.value = value

    def __reduce_ex__(self, protocol):
        return self.value


def hostile(mark):
    """Pickles that write the file `mark`, or end the process, if their machine runs them."""
    write = f"open({str(mark)!r}, 'w').close()"
    text = write.encode()
    short = b"\x8c" + bytes([len(text)]) + text  # SHORT_BINUNICODE
    run = b"c__builtin__\nexec\n" + short + b"\x85R"
    return {
        "os.system": pickle.dumps(Reduced(os.system, (f"touch {mark}",)), 2),
        "posix.system by name": b"\x80\x02cposix\nsystem\n" + short + b"\x85R.",
        "eval": pickle.dumps(Reduced(builtins.eval, (write,)), 2),
        "exec, protocol 4": pickle.dumps(Reduced(builtins.exec, (write,)), 4),
        "exec, protocol 0": pickle.dumps(Reduced(builtins.exec, (write,)), 0),
        "inside of a state dictionary": pickle.dumps({"a": [Reduced(exec, (write,))]}, 2),
        "as a reducer's state": pickle.dumps(
            Reduced(collections.OrderedDict, (), Reduced(exec, (write,))), 2
        ),
        "after the state dictionary": b"\x80\x02}" + run + b"0.",
        "getattr chain": pickle.dumps(
            Reduced(getattr, (Reduced(importlib.import_module, ("os",)), "system")), 4
        ),
        "attribute of an allowed name": (
            b"\x80\x04\x8c\x0bcollections\x8c\x24OrderedDict.__init__.__globals__.sys\x93."
        ),
        "torch function": b"\x80\x02ctorch.hub\nload\n\x8c\x01a\x85R.",
        "torch.load": b"\x80\x02ctorch\nload\n\x8c\x01a\x85R.",
        "inner function of an allowed module": b"\x80\x02ctorch._utils\n_import_dotted_name\n.",
        "a storage called": b"\x80\x02ctorch\nFloatStorage\nK\x05\x85R.",
        "a storage as an object": b"\x80\x02ctorch\nFloatStorage\n)\x81.",
        "a state for a class": (
            b"\x80\x02ccollections\nOrderedDict\n}\x8c\x07__new__" + run + b"sb."
        ),
        "attributes for a class": (
            b"\x80\x02ccollections\nOrderedDict\nN}\x8c\x08__call__\x8c\x01as\x86b."
        ),
        "attributes for a function": (
            b"\x80\x02ctorch._utils\n_rebuild_parameter\nN}\x8c\x0c__defaults__Ns\x86b."
        ),
        "instance": b"\x80\x02(" + short + b"i__builtin__\nexec\n.",
        "object": b"\x80\x02(c__builtin__\nexec\n" + short + b"o.",
        "extension": b"\x80\x02\x82\x01.",
        "new object with keywords": b"\x80\x04\x8c\x01a)}\x92.",
        "names from the stack that are no texts": b"\x80\x04)\x8c\x01a\x93.",
        "calls a text": b"\x80\x02\x8c\x04exec" + short + b"\x85R.",
        "calls with no tuple": b"\x80\x02ccollections\nOrderedDict\n]R.",
        "too many arguments": b"\x80\x02ccollections\nOrderedDict\n))\x86R.",
        "an OrderedDict of no pairs": b"\x80\x02ccollections\nOrderedDict\n]K\x01a\x85R.",
        "a key that hashes": pickle.dumps({(1, 2): 3}, 2),
        "a key that hashes deep": b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s.",
        "a key of an OrderedDict": (
            b"\x80\x02ccollections\nOrderedDict\n]()" + b"\x85" * 200_000 + b"K\x01\x86e\x85R."
        ),
        "a set": pickle.dumps({1, 2}, 4),
        "odd persistent id, a text": b"\x80\x02\x8c\x05../..Q.",
        "odd persistent id, a tuple": b"\x80\x02(\x8c\x07storage" + short + b"K\x01K\x01K\x01tQ.",
        "odd persistent id, a module": b"\x80\x02(\x8c\x06moduleNNNNtQ.",
        "odd persistent id, protocol 0": b"P../../etc/passwd\n.",
        "no such memo": b"\x80\x02h\x07.",
        "nothing on the stack": b"\x80\x02R.",
        "no mark": b"\x80\x02t.",
        "appends to a text": b"\x80\x02\x8c\x01aNa.",
        "sets an item of a list": b"\x80\x02]NNs.",
        "an odd number of items": b"\x80\x02}(NNNu.",
        "a length without its content": b"\x80\x02X\xff\xff\xff\x7fabc.",
        "a length past all memory": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        "a number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f\x00.",
        "no end": b"\x80\x02}",
        "unknown instruction": b"\x80\x02\xff.",
        "protocol 9": b"\x80\x09}.",
        "only the end": b".",
        "deep tuples": b"\x80\x02)" + b"\x85" * 200_000 + b".",
        "deep lists": b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b".",
        "a list in itself": b"\x80\x02]q\x00h\x00a.",
        "a dictionary in itself": b"\x80\x02}q\x00\x8c\x01ah\x00s.",
        "lists of ten times the list before": (
            b"\x80\x02]q\x00" + b"".join(b"](" + b"h%c" % i * 10 + b"eq%c" % (i + 1)
                                        for i in range(60)) + b"."
        ),
    }  # fmt: skip


HOSTILE = sorted(hostile("mark"))


def legacy_around(path, data):
    with open(path, "wb") as file:
        for value in (MAGIC, 1001, {"little_endian": True}):
            pickle.dump(value, file, protocol=2)
        file.write(data)
        pickle.dump([], file, protocol=2)


AROUND = {"zip": lambda path, data: write_zip(path, data, {}), "legacy": legacy_around}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_do_nothing(path, tmp_path, name, around):
    mark = tmp_path / "mark"
    AROUND[around](path, hostile(mark)[name])
    refuse(path)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["eval", "exec, protocol 4", "inside of a state dictionary"])
def test_the_same_pickles_run_in_pythons_machine(tmp_path, name):
    """So that the test above would fail if they were run."""
    mark = tmp_path / "mark"
    pickle.loads(hostile(mark)[name])
    assert mark.exists()


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("os.system", f"names {os.system.__module__}.system"),
        ("eval", "names __builtin__.eval"),
        ("getattr chain", "names builtins.getattr"),
        ("torch function", "names torch.hub.load"),
        ("a storage called", "calls torch.FloatStorage"),
        ("extension", "the instruction EXT1"),
        ("instance", "the instruction INST"),
        ("a key that hashes deep", "a tuple as a key"),
        ("a set", "the instruction EMPTY_SET"),
        ("odd persistent id, a module", "no storage"),
    ],
)
def test_what_was_refused_is_named(path, tmp_path, name, word):
    write_zip(path, hostile(tmp_path / "mark")[name], {})
    refuse(path, word)


def test_a_hostile_pickle_in_the_other_places_of_the_older_format(path, tmp_path):
    mark = tmp_path / "mark"
    data = hostile(mark)["exec, protocol 4"]
    plain = [pickle.dumps(v, 2) for v in (MAGIC, 1001, {"little_endian": True}, {}, [])]
    for i in range(1, 5):
        path.write_bytes(b"".join([*plain[:i], data, *plain[i + 1 :]]))
        refuse(path, "names builtins.exec")
        assert not mark.exists()


def test_long_names_are_shortened(path):
    write_zip(path, b"\x80\x02c" + b"a" * 10**5 + b"\n\x1b[2J\n.", {})
    assert len(refuse(path)) < 300


def test_the_machine_leaves_the_file_at_the_end_of_the_pickle():
    file = BytesIO(pickle.dumps([1, "a", 2.5, None, {"b": (True,)}], 2) + b"rest")
    assert unpickle(file, {}, None) == [1, "a", 2.5, None, {"b": (True,)}]
    assert file.read() == b"rest"
    with pytest.raises(Refused, match="damaged"):
        unpickle(file, {}, None)


@pytest.mark.parametrize("call", [b"R", b"\x81"])  # REDUCE and NEWOBJ
def test_only_what_is_given_is_called(call):
    data = b"\x80\x02cmodule\nname\nK\x01\x85" + call + b"."
    assert unpickle(BytesIO(data), {"module.name": lambda x: x + 1}, None) == 2
    with pytest.raises(Refused, match=r"calls module\.name"):
        unpickle(BytesIO(data), {"module.name": None}, None)
    with pytest.raises(Refused, match=r"names module\.name"):
        unpickle(BytesIO(data), {"module.nam": lambda x: x + 1}, None)


def test_persistent_ids_are_handed_over():
    data = b"\x80\x02K\x05Q."
    assert unpickle(BytesIO(data), {}, lambda reference: reference + 1) == 6


# PyTorch's own files ------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_files_of_pytorch(path, new, protocol):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    base = torch.randn(4, 5)
    state = {
        **network.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "half": torch.randn(3).half(),
        "bfloat16": torch.randn(3).bfloat16(),
        "transposed": base.T,
        "part": base[1:3, ::2],
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "mask": torch.tensor([True, False]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "none": torch.empty(0, 3),
    }
    torch.save(
        {"epoch": 1, "state_dict": state}, path,
        pickle_protocol=protocol, _use_new_zipfile_serialization=new,
    )  # fmt: skip
    expected = {key: value.detach() for key, value in state.items()}
    for key in ("half", "bfloat16"):
        expected[key] = expected[key].float()
    same(read_pth(path), {key: value.numpy() for key, value in expected.items()})
    torch.save(network, path, _use_new_zipfile_serialization=new)
    refuse(path, "torch.nn.modules.container.Sequential")
