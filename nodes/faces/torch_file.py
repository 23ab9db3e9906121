"""Opens a .pt file as what it is, a ZIP archive of numbers with one pickle, and trusts nothing in it.

The layout follows PyTorch's `torch.save` (since 1.6): `<name>/data.pkl` describes the value,
`<name>/data/<key>` are the storages, uncompressed, `<name>/byteorder` says which end of a number comes first.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..base.errors import InputError
from ..base.sentences import Sentence, say
from .pickles import LONGEST, Record, TensorPlan, read_pickle
from .refusals import bare_weights, damaged, strange, too_large

LARGEST = 2 * 1024**3  # bytes; the largest YOLO has 0.3 GB
MAX_ENTRIES = 10_000
_ENCRYPTED = 0x1
_DAMAGE = (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, RuntimeError, ValueError, struct.error)


class TorchFile:
    """The described value of a .pt file and its tensors, read when asked for.

    `value` holds dicts, lists, tuples, plain values, `Record` and `TensorPlan`. Use as a context manager.
    Raises ValueError, in one sentence, for whatever is not a proper file.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        size = path.stat().st_size
        if size > LARGEST:
            raise too_large(f"{size / 1e9:.1f} GB")
        with path.open("rb") as file:
            start = file.read(64)
        if not start.startswith(b"PK\x03\x04"):
            raise InputError(_what_it_is(start, size))
        try:
            self.archive = zipfile.ZipFile(path)
        except _DAMAGE as error:
            raise damaged("no whole archive") from error
        try:
            self.entries = _checked_entries(self.archive, size)
            self.value = read_pickle(self._read("data.pkl"))
            if self.entries.get("byteorder") and self._read("byteorder").strip() != b"little":
                raise InputError(
                    say("it was saved on a big-endian machine: save it again on an ordinary one.")
                )
        except BaseException:
            self.archive.close()
            raise

    def __enter__(self) -> TorchFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.archive.close()

    def tensor(self, plan: TensorPlan) -> torch.Tensor:
        """A tensor with memory of its own, in the file's dtype."""
        data = self._read(f"data/{plan.storage.key}")
        dtype = getattr(torch, plan.storage.dtype)
        if len(data) < plan.storage.count * dtype.itemsize:
            raise damaged("fewer numbers than it promises")
        if not plan.storage.count:
            return torch.empty(plan.size, dtype=dtype)
        flat = torch.frombuffer(bytearray(data), dtype=dtype, count=plan.storage.count)
        return flat.as_strided(plan.size, plan.stride, plan.offset).clone()

    def _read(self, name: str) -> bytes:
        entry = self.entries.get(name)
        if entry is None:
            raise InputError(say("it lacks '%1': it is not a PyTorch file, or an incomplete one.", name[:60]))
        if name == "data.pkl" and entry.file_size > LONGEST:
            raise too_large(f"{entry.file_size:,} bytes of pickle")
        try:
            return self.archive.read(entry)
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            OSError,
            EOFError,
            RuntimeError,
            ValueError,
        ) as error:
            raise damaged("a checksum is wrong") from error


def _checked_entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Entries by their name inside the archive's one folder."""
    listed = archive.infolist()
    if len(listed) > MAX_ENTRIES:
        raise too_large(f"{len(listed):,} parts")
    if any(entry.flag_bits & _ENCRYPTED for entry in listed):
        raise strange("encrypted")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in listed):
        raise InputError(say("it is compressed, which a PyTorch file never is: unpack it first."))
    if sum(entry.file_size for entry in listed) > size:
        raise strange("parts larger than the file")
    folders = {entry.filename.partition("/")[0] for entry in listed}
    if len(folders) != 1:
        raise InputError(say("it is an archive, but not one that PyTorch wrote."))
    entries = {entry.filename.partition("/")[2]: entry for entry in listed}
    if len(entries) != len(listed):
        raise strange("the same part twice")
    return entries


def _what_it_is(start: bytes, size: int) -> Sentence:
    if start.startswith(b"version https://git-lfs"):
        return say("it is a Git LFS pointer, not the file itself: download the real file.")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return say("it is a web page saved under this name: download the real file.")
    if start.startswith(b"\x80\x02") or start.startswith(b"\x80\x03"):
        return say(
            "it is in PyTorch's format of before 2020: open it once with a current PyTorch and save it again."
        )
    if not size:
        return say("it is empty: download it again.")
    return say("it is not a PyTorch file.")


def find_model(value: Any) -> Record:
    """The model in a checkpoint's value: the averaged one (`ema`) before the last one (`model`)."""
    found = value
    if isinstance(value, dict):
        found = value.get("ema") if isinstance(value.get("ema"), Record) else value.get("model")
        if found is None and value and all(isinstance(item, TensorPlan) for item in value.values()):
            raise bare_weights()
    if not isinstance(found, Record):
        raise InputError(say("it holds no model: it is not a detector that Ultralytics saved."))
    return found
