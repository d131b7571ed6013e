"""Reading a pickle that holds containers, texts and numbers, and calls nothing but what is given.

A pickle is a program for a small machine with a stack: most of its instructions push a value or put
values into a container, a few name a function and call it. Python's own machine (pickle.Unpickler)
can be told which functions to give out, but it also changes the attributes of any object, and
hashes any key: a tuple nested a million times ends the process. This machine knows only the
instructions that are needed for weights, and takes only texts and whole numbers as keys.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

Functions = Mapping[str, Callable[..., Any] | None]

_NOTHING_TO_DO = {"PROTO", "FRAME"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NEW: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OTHERS = {
    "STOP", "MARK", "TUPLE", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT",
    "MEMOIZE", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD",
    "BINPERSID",
}  # fmt: skip
_KNOWN = _NOTHING_TO_DO | _VALUES | _OTHERS | _CONSTANTS.keys() | _NEW.keys() | _TUPLES.keys()
_INSTRUCTIONS = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


class Refused(ValueError):
    """The pickle asks for what is not given, or is damaged; nothing of it was run."""


@dataclass(frozen=True)
class Name:
    """A function or class that the pickle refers to, by "module.name"; it is never looked up."""

    text: str


def unpickle(file: BinaryIO, functions: Functions, persistent: Callable[[Any], Any]) -> Any:
    """The object of the pickle that begins where `file` stands; the file is left at its end.

    `functions` holds what may be called, by "module.name"; those that are None may be named but not
    called. `persistent` turns a persistent id (any object) into a value. Raises Refused for
    everything else. Source of the instructions: the standard library's pickletools.
    """
    try:
        return _run(_instructions(file), functions, persistent)
    except Refused:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise Refused(f"damaged pickle: {error}") from error


def _instructions(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    """Each instruction's name and argument. Only those of known instructions are read."""
    while code := file.read(1):
        opcode = _INSTRUCTIONS.get(code)
        if opcode is None or opcode.name not in _KNOWN:
            found = opcode.name if opcode else repr(code)
            raise Refused(f"has the instruction {found}, which weights do not need")
        if opcode.name == "GLOBAL":  # pickletools would take backslashes for escapes
            yield "GLOBAL", ".".join(_line(file) for _ in range(2))
        else:
            yield opcode.name, opcode.arg.reader(file) if opcode.arg else None


def _line(file: BinaryIO) -> str:
    return file.readline().removesuffix(b"\n").decode("ascii")


def _run(
    instructions: Iterator[tuple[str, Any]],
    functions: Functions,
    persistent: Callable[[Any], Any],
) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for name, argument in instructions:
        if name in _NOTHING_TO_DO:
            pass
        elif name == "STOP":
            return stack.pop()
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _NEW:
            stack.append(_NEW[name]())
        elif name in _VALUES:
            stack.append(argument)
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else since_mark()
            _expect(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(), stack.pop()][::-1] if name == "SETITEM" else since_mark()
            set_items(_expect(stack[-1], dict), zip(items[::2], items[1::2], strict=True))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(_named(argument, functions))
        elif name == "STACK_GLOBAL":
            last, module = _expect(stack.pop(), str), _expect(stack.pop(), str)
            stack.append(_named(f"{module}.{last}", functions))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = _expect(stack.pop(), tuple), _expect(stack.pop(), Name)
            if (call := functions[function.text]) is None:
                raise Refused(f"calls {function.text}, which weights do not need")
            stack.append(call(*arguments))
        elif name == "BUILD":
            stack.pop()  # an object's attributes, as _metadata of a state dictionary: not set
        elif name == "BINPERSID":
            stack.append(persistent(stack.pop()))
    raise Refused("damaged pickle: no end")


def set_items(target: dict[Any, Any], items: Any) -> None:
    """target[key] = value for each pair; Refused where a key is no text or whole number."""
    for key, value in items:
        if not isinstance(key, str | int):
            raise Refused(f"has a {type(key).__name__} as a key, expected a text or a number")
        target[key] = value


def _named(text: str, functions: Functions) -> Name:
    if text not in functions:
        raise Refused(f"names {_shortened(text)}, which weights do not need")
    return Name(text)


def _shortened(text: str) -> str:
    return ascii(text[:80])[1:-1]


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise Refused(f"damaged pickle: {type(value).__name__} found, expected {kind.__name__}")
    return value
