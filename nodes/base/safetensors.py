"""Reading what a safetensors file holds from its header alone: no tensor is touched, no code is run.

Format: https://github.com/huggingface/safetensors (eight bytes of header length, little endian; a JSON object
`{key: {dtype, shape, data_offsets}}`; then the tensors without gap or overlap). Everything the file says is
checked against the file's real size first, so a wrong download ends in one sentence instead of a failed load.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field  # Header has a field of that name
from pathlib import Path
from typing import Any, NamedTuple

from .errors import InputError
from .sentences import say

# Real Klein headers take 20 to 60 KB; the format itself allows 100 MB, which costs gigabytes once parsed.
MAX_HEADER_BYTES = 32 * 1024 * 1024

_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
_PLAIN_DTYPES = {
    "F64": "float64", "F32": "fp32", "F16": "fp16", "BF16": "bf16", "F8_E4M3": "fp8 e4m3fn",
    "F8_E5M2": "fp8 e5m2", "U8": "4-bit (packed)", "I8": "int8", "F4": "fp4",
}  # fmt: skip
# What quantised checkpoints store beside the weights; neither a weight nor a parameter.
_QUANT_ENDINGS = (
    "weight_scale", "weight_scale_2", "input_scale", "comfy_quant",
    "scale_weight", "scale_input", "scaled_fp8", "comfy_attention.config",
)  # fmt: skip


class Entry(NamedTuple):
    """One tensor as the header describes it; `dtype` in safetensors' spelling ("BF16")."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """What a checkpoint holds; `field` is the node input it was picked in, `name` what was picked there."""

    field: str
    name: str
    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str] = dataclass_field(default_factory=dict)

    @property
    def label(self) -> str:
        """How every error sentence about this file begins."""
        return f'{self.field} "{self.name}"'

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: entry.shape for key, entry in self.tensors.items()}

    @property
    def parameters(self) -> int:
        """Weights stored; a byte of a 4-bit weight counts as the two weights it packs."""
        return sum(_weights(self.tensors, key) for key in self.tensors)

    @property
    def dtype(self) -> str:
        """The type most weights are stored in, in words ("bf16")."""
        counts: Counter[str] = Counter()
        for key, entry in self.tensors.items():
            counts[entry.dtype] += _weights(self.tensors, key)
        return plain_dtype(counts.most_common(1)[0][0]) if counts else "unknown"

    def matrix(self, key: str) -> tuple[int, int]:
        """(rows, columns) of a weight with two axes, counted unpacked; ValueError when it is not one."""
        shape = self.tensors[key].shape if key in self.tensors else None
        if shape is None or len(shape) != 2:
            raise InputError(
                say(
                    "%1 is damaged or of another model (%2 is %3): download it again.", self.label, key, shape
                )
            )
        return shape[0], shape[1] * (2 if is_packed(self.tensors, key) else 1)

    def without_prefix(self, prefix: str) -> Header:
        """The same file seen from inside `prefix`; unchanged when no key starts with it."""
        inside = {key[len(prefix) :]: entry for key, entry in self.tensors.items() if key.startswith(prefix)}
        return Header(self.field, self.name, inside, self.metadata) if inside else self


def plain_dtype(dtype: str) -> str:
    """Safetensors' type name in the words ComfyUI's users know."""
    return _PLAIN_DTYPES.get(dtype, dtype.lower())


def is_packed(tensors: Mapping[str, Entry], key: str) -> bool:
    """Whether the bytes of `key` hold two 4-bit weights each (nvfp4: U8 beside FP8 block scales)."""
    scale = tensors.get(f"{key}_scale")
    return tensors[key].dtype == "U8" and scale is not None and scale.dtype == "F8_E4M3"


def read_header(
    path: str | os.PathLike[str], field: str = "diffusion_model", name: str | None = None
) -> Header:
    """Read and check the header of a safetensors file.

    Raises ValueError, one sentence beginning with the input's name, for anything but a whole, sound file:
    missing, empty, Git LFS pointer, web page, other format, cut off, or with a hostile header.
    """
    path = Path(path)
    name = name or path.name
    label = f'{field} "{name}"'
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(512)
            _refuse_other_formats(label, path, start, size)
            length = int.from_bytes(start[:8], "little")
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise _wrong_length(label, length, size, start)
            file.seek(8)
            raw = file.read(length)
    except OSError as error:
        raise InputError(
            say(
                "%1 cannot be read (%2): check that the file is there and readable.",
                label,
                error.strerror or error,
            )
        ) from error
    try:
        parsed = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(label, "its header is not readable") from error
    return _checked(field, name, label, parsed, size - 8 - length)


def _weights(tensors: Mapping[str, Entry], key: str) -> int:
    if key.endswith(_QUANT_ENDINGS):
        return 0
    return math.prod(tensors[key].shape) * (2 if is_packed(tensors, key) else 1)


def _damaged(label: str, why: str) -> InputError:
    return InputError(say("%1 is damaged (%2): download it again.", label, why))


def _refuse_other_formats(label: str, path: Path, start: bytes, size: int) -> None:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if size == 0:
        raise InputError(say("%1 is an empty file: download it again.", label))
    if text.startswith(b"version https://git-lfs"):
        raise InputError(
            say(
                "%1 is a Git LFS pointer, a note of %2 bytes that only stands for the weights: "
                "download the file itself (the download button of its page, or git lfs pull).",
                label,
                size,
            )
        )
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise InputError(
            say(
                "%1 is a web page, not a model: the download was answered with a page (often a log-in or a "
                "licence to accept), so open its address in the browser, accept, and download again.",
                label,
            )
        )
    if start.startswith(b"GGUF"):
        raise InputError(
            say(
                "%1 is a GGUF file under another name: rename it to end in .gguf and install ComfyUI-GGUF.",
                label,
            )
        )
    # A header of 640 bytes (or 66,176 ...) states its length in the two bytes that a pickle begins with.
    pickled = start.startswith((b"PK\x03\x04", b"\x80\x02")) and start[8:9] != b"{"
    if pickled or path.suffix.lower() not in (".safetensors", ".sft"):
        raise InputError(
            say(
                "%1 is not a safetensors file, the only format read here because it cannot carry code: "
                "download the .safetensors version.",
                label,
            )
        )


def _wrong_length(label: str, length: int, size: int, start: bytes) -> InputError:
    if size > 8 and start[8:9] == b"{" and length <= MAX_HEADER_BYTES:
        return InputError(
            say("%1 is cut off after %2 bytes, inside its header: download it again.", label, f"{size:,}")
        )
    return InputError(
        say("%1 is not a safetensors file (its first bytes are no header length): download it again.", label)
    )


def _checked(field: str, name: str, label: str, parsed: Any, data_bytes: int) -> Header:
    if not isinstance(parsed, dict):
        raise _damaged(label, "its header is no table of tensors")
    metadata = parsed.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(label, "its metadata are no plain text")
    tensors: dict[str, Entry] = {}
    spans: list[tuple[int, int]] = []
    for key, value in parsed.items():
        entry, span = _entry(label, key, value)
        tensors[key] = entry
        spans.append(span)
    if not tensors:
        raise _damaged(label, "it holds no weights")
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise _damaged(label, "its tensors overlap or leave gaps")
        position = end
    if position > data_bytes:
        raise InputError(
            say(
                "%1 is cut off (it has %2 of %3 bytes of weights): download it again.",
                label,
                f"{data_bytes:,}",
                f"{position:,}",
            )
        )
    if position < data_bytes:
        raise _damaged(label, f"{data_bytes - position:,} bytes follow its last tensor")
    return Header(field, name, tensors, metadata)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _entry(label: str, key: str, value: Any) -> tuple[Entry, tuple[int, int]]:
    short = key if len(key) <= 80 else key[:77] + "..."
    where = "".join(character if character.isprintable() else "?" for character in short)
    if not isinstance(value, dict):
        raise _damaged(label, f"tensor {where} is not described")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _damaged(label, f"tensor {where} has an unknown type")
    if not isinstance(shape, list) or len(shape) > 8 or not all(_is_count(side) for side in shape):
        raise _damaged(label, f"tensor {where} has no valid shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(offset) for offset in offsets):
        raise _damaged(label, f"tensor {where} has no valid place")
    begin, end = offsets
    if (end - begin) * 8 != math.prod(shape) * _BITS[dtype]:
        raise _damaged(label, f"tensor {where} does not fit its place")
    return Entry(dtype, tuple(shape)), (begin, end)
