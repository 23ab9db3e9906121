"""Reads the pickle inside a .pt file without executing any of it.

A pickle is a program that may call whatever it names. This machine runs only the instructions a PyTorch file
needs (the opcodes of Python's `pickletools`), looks names up in the constant list of `pickle_names.py`
instead of importing them, and answers every call with a plain description: `Record` for an object, `Storage`
and `TensorPlan` for tensors, dicts, lists and tuples for themselves. Nothing that a file names is ever
imported, built or called. Every refusal is a ValueError in one sentence.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from .pickle_names import BOUND_METHODS, PERMITTED, STORAGES
from .refusals import asks_for, damaged, strange, too_large

LONGEST = 64 * 1024 * 1024  # bytes of pickle; that of the largest YOLO has 0.7 million
MAX_STEPS = 5_000_000


@dataclass(frozen=True)
class Name:
    """A global that the file names and the list permits."""

    path: str


@dataclass
class Record:
    """An object as the file describes it: its class, what it was called with, its attributes."""

    path: str
    arguments: tuple
    state: dict = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Storage:
    """A run of numbers kept beside the pickle: its entry in the archive, their type, how many."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class TensorPlan:
    """How a tensor lies in a storage; all counted in elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Mark:
    pass


def read_pickle(data: bytes) -> Any:
    """The described value of a pickle (protocols 2 to 5); ValueError when anything in it is unusual."""
    if len(data) > LONGEST:
        raise too_large(f"{len(data):,} bytes of pickle")
    try:
        return _Machine(data).run()
    except ValueError:
        raise
    except (IndexError, KeyError, TypeError, struct.error, UnicodeDecodeError, OverflowError) as error:
        raise damaged(f"pickle: {type(error).__name__}") from error


class _Machine:
    """Stack, memo and position of one reading."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_STEPS):
            opcode = self.take(1)
            if opcode == b".":
                return self.pop()
            step = _STEPS.get(opcode)
            if step is None:
                raise strange(f"opcode {opcode.hex()}")
            step(self)
        raise too_large(f"{MAX_STEPS:,} pickle instructions")

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        if count < 0 or len(piece) < count:
            raise damaged("pickle ends too early")
        self.at += count
        return piece

    def number(self, layout: str) -> int:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        end = self.data.index(b"\n", self.at)
        text = self.data[self.at : end].decode("utf-8")
        self.at = end + 1
        return text

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if isinstance(value, _Mark):
            raise damaged("pickle: unexpected mark")
        return value

    def pop_to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[index], _Mark):
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise damaged("pickle: missing mark")

    def text(self, layout: str) -> None:
        self.push(self.take(self.number(layout)).decode("utf-8", "surrogatepass"))

    def long(self) -> None:
        self.push(int.from_bytes(self.take(self.number("<B")), "little", signed=True))

    def put(self, layout: str) -> None:
        self.memo[self.number(layout)] = self.stack[-1]

    def get(self, layout: str) -> None:
        self.push(self.memo[self.number(layout)])

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise damaged("pickle: appends to what is no list")
        target.extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise damaged("pickle: sets items of what is no dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Hashing a nested tuple can take for ever; names and numbers are all a model's dicts use.
            if not isinstance(key, str | int | float | bool | None):
                raise strange(f"a dict with a {type(key).__name__} as a key")
            target[key] = value

    def name(self, module: Any, attribute: Any) -> None:
        path = f"{module}.{attribute}"
        if path not in PERMITTED:
            raise asks_for(path[:80])
        self.push(Name(path))

    def call(self) -> None:
        arguments = self.pop()
        target = self.pop()
        if not isinstance(target, Name) or not isinstance(arguments, tuple):
            raise strange("a call of no known name")
        self.push(_describe_call(target.path, arguments))

    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1]
        if isinstance(state, tuple) and len(state) == 2:  # attributes, slots
            state = {**(state[0] or {}), **(state[1] or {})}
        if isinstance(target, Record):
            if isinstance(state, dict):
                target.state.update(state)
        elif not isinstance(target, dict):  # an OrderedDict's own attributes mean nothing here
            raise damaged("pickle: attributes of a plain value")

    def stored(self) -> None:
        reference = self.pop()
        kind, storage, key, _device, count = reference
        if kind != "storage" or not isinstance(storage, Name) or storage.path not in STORAGES:
            raise strange("a reference to no tensor")
        if not isinstance(key, str) or not isinstance(count, int) or count < 0:
            raise strange("a reference of another form")
        self.push(Storage(key, STORAGES[storage.path], count))


def _describe_call(path: str, arguments: tuple) -> Any:
    if path == "collections.OrderedDict":
        return dict(arguments[0]) if arguments else {}
    if path in ("__builtin__.set", "builtins.set"):
        return tuple(arguments[0]) if arguments else ()
    if path == "torch._utils._rebuild_parameter":
        return arguments[0]
    if path in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        return _tensor(*arguments[:4])
    if path == "torch.Size":
        return tuple(arguments[0])
    if path in ("builtins.getattr", "__builtin__.getattr") and arguments[1] not in BOUND_METHODS:
        raise asks_for(f"getattr {str(arguments[1])[:60]}")
    return Record(path, arguments)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any) -> TensorPlan:
    if not (isinstance(storage, Storage) and isinstance(size, tuple) and isinstance(stride, tuple)):
        raise strange("a tensor of another form")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or len(size) > 8 or not all(type(n) is int and n >= 0 for n in numbers):
        raise strange("a tensor of an impossible shape")
    count, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        count *= length
        last += (length - 1) * step if length else 0
    # More elements than the storage has would be a small file that unfolds into gigabytes.
    if count > storage.count or (count and last >= storage.count):
        raise strange("a tensor larger than its numbers")
    return TensorPlan(storage, offset, size, stride)


def _dict(machine: _Machine) -> None:
    values = machine.pop_to_mark()
    machine.push({})
    machine.set_items(values)


def _last(machine: _Machine, count: int) -> tuple:
    """The topmost values, oldest first."""
    values = [machine.pop() for _ in range(count)]
    return tuple(reversed(values))


_STEPS = {
    b"\x80": lambda m: m.take(1),  # PROTO
    b"\x95": lambda m: m.take(8),  # FRAME
    b"(": lambda m: m.push(_Mark()),
    b"0": lambda m: m.stack.pop(),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: m.long(),
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"X": lambda m: m.text("<I"),
    b"\x8c": lambda m: m.text("<B"),
    b"\x8d": lambda m: m.text("<Q"),
    b"C": lambda m: m.push(m.take(m.number("<B"))),
    b"B": lambda m: m.push(m.take(m.number("<I"))),
    b"U": lambda m: m.push(m.take(m.number("<B"))),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b")": lambda m: m.push(()),
    b"\x8f": lambda m: m.push([]),  # EMPTY_SET; a list will do, nobody looks into it
    b"\x85": lambda m: m.push((m.pop(),)),
    b"\x86": lambda m: m.push(_last(m, 2)),
    b"\x87": lambda m: m.push(_last(m, 3)),
    b"t": lambda m: m.push(tuple(m.pop_to_mark())),
    b"l": lambda m: m.push(m.pop_to_mark()),
    b"d": _dict,
    b"a": lambda m: m.append([m.pop()]),
    b"e": lambda m: m.append(m.pop_to_mark()),
    b"\x90": lambda m: m.append(m.pop_to_mark()),  # ADDITEMS
    b"s": lambda m: m.set_items(list(_last(m, 2))),
    b"u": lambda m: m.set_items(m.pop_to_mark()),
    b"q": lambda m: m.put("<B"),
    b"r": lambda m: m.put("<I"),
    b"\x94": lambda m: m.memo.__setitem__(len(m.memo), m.stack[-1]),  # MEMOIZE
    b"h": lambda m: m.get("<B"),
    b"j": lambda m: m.get("<I"),
    b"c": lambda m: m.name(m.line(), m.line()),
    b"\x93": lambda m: m.name(*_last(m, 2)),
    b"R": _Machine.call,
    b"\x81": _Machine.call,  # NEWOBJ: described like any other call
    b"b": _Machine.build,
    b"Q": _Machine.stored,
}
