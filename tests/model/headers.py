"""Safetensors files and headers made by code, for tests: any shapes, no real weights."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

BYTES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "U8": 1, "I64": 8}


def header_of(
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str | Mapping[str, str] = "BF16",
    metadata: dict | None = None,
) -> dict:
    """The JSON table of a file whose tensors have these shapes, laid out without gaps."""
    table: dict = {} if metadata is None else {"__metadata__": metadata}
    position = 0
    for key, shape in shapes.items():
        kind = dtype if isinstance(dtype, str) else dtype.get(key, "BF16")
        end = position + math.prod(shape) * BYTES[kind]
        table[key] = {"dtype": kind, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    return table


def write_header(path: Path, table: object, data_bytes: int | None = None) -> Path:
    """A file with this header and a hole as large as its tensors: gigabytes cost nothing."""
    raw = json.dumps(table).encode()
    if data_bytes is None:
        data_bytes = max((v["data_offsets"][1] for k, v in table.items() if k != "__metadata__"), default=0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + data_bytes)
    return path


def write_shapes(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "BF16", **table: object
) -> Path:
    """A sound safetensors file of zeros."""
    return write_header(path, header_of(shapes, dtype, **table))
