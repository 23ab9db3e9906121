"""Writes .pt files as PyTorch and Ultralytics do, byte by byte, so that tests can write wrong ones too."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from kleinod_pure.faces.blueprint import Blueprint, Part, read_blueprint
from kleinod_pure.faces.pickles import Record, Storage, TensorPlan

ROOT = Path(__file__).resolve().parents[2]
NANO_FILE = ROOT / "nodes" / "faces" / "detector_weights" / "faces.safetensors"

_MODULES = {
    "torch.nn.modules.conv": ("Conv2d", "ConvTranspose2d"),
    "torch.nn.modules.batchnorm": ("BatchNorm2d",),
    "torch.nn.modules.activation": ("SiLU",),
    "torch.nn.modules.container": ("Sequential", "ModuleList"),
    "torch.nn.modules.pooling": ("MaxPool2d",),
    "torch.nn.modules.upsampling": ("Upsample",),
    "ultralytics.nn.modules.conv": ("Conv", "Concat"),
    "ultralytics.nn.modules.block": ("C2f", "Bottleneck", "SPPF", "DFL"),
    "ultralytics.nn.modules.head": ("Detect",),
}
PATHS = {kind: f"{module}.{kind}" for module, kinds in _MODULES.items() for kind in kinds}


@dataclass(frozen=True)
class Raw:
    """Instructions to put into the pickle as they are."""

    code: bytes


def pickled(value: Any) -> bytes:
    """A pickle of protocol 2 of plain values, records and tensor plans."""
    return b"\x80\x02" + _code(value) + b"."


def name_code(path: str) -> bytes:
    module, _, attribute = path.rpartition(".")
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def call_code(path: str, *arguments: Any) -> bytes:
    return name_code(path) + _code(tuple(arguments)) + b"R"


def _code(value: Any) -> bytes:
    if isinstance(value, Raw):
        return value.code
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        return b"\x8a\x10" + value.to_bytes(16, "little", signed=True)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_code, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(_code, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_code(key) + _code(item) for key, item in value.items()) + b"u"
    if isinstance(value, Record):
        return name_code(value.path) + _code(value.arguments) + b"\x81" + _code(value.state) + b"b"
    if isinstance(value, Storage):
        kinds = {"float32": "Float", "float16": "Half", "int64": "Long"}
        storage = Raw(name_code(f"torch.{kinds[value.dtype]}Storage"))
        return _code(("storage", storage, value.key, "cpu", value.count)) + b"Q"
    if isinstance(value, TensorPlan):
        hooks = Raw(name_code("collections.OrderedDict") + b")R")
        parts = (Raw(_code(value.storage)), value.offset, value.size, value.stride, False, hooks)
        return name_code("torch._utils._rebuild_tensor_v2") + _code(parts) + b"R"
    raise TypeError(type(value))


def checkpoint_of(blueprint: Blueprint) -> tuple[dict, dict[str, bytes]]:
    """What Ultralytics saves for such a network: the checkpoint's value, and the storages by key."""
    storages: dict[str, bytes] = {}

    def plan(name: str) -> TensorPlan:
        tensor = blueprint.weights[name].contiguous()
        key = str(len(storages))
        storages[key] = tensor.numpy().tobytes()
        dtype = str(tensor.dtype).removeprefix("torch.")
        return TensorPlan(Storage(key, dtype, tensor.numel()), 0, tuple(tensor.shape), tensor.stride())

    def record(part: Part, prefix: str) -> Record:
        own = [name.removeprefix(prefix) for name in blueprint.weights if name.startswith(prefix)]
        held = {name: plan(prefix + name) for name in own if "." not in name}
        state = {
            "training": False,
            "_parameters": held | ({"bias": None} if part.kind == "Conv2d" and "bias" not in held else {}),
            "_buffers": {},
            "_modules": {name: record(inner, f"{prefix}{name}.") for name, inner in part.parts.items()},
            **{name: value for name, value in part.options.items() if name != "bias"},
        }
        return Record(PATHS[part.kind], (), state)

    layers = record(blueprint.network, "")
    names = dict(enumerate(blueprint.labels))
    model = Record("ultralytics.nn.tasks.DetectionModel", (), {"_modules": {"model": layers}, "names": names})
    value = {"model": model, "ema": None, "train_args": {"imgsz": blueprint.size}, "date": "2026-01-01"}
    return value, storages


def write_archive(path: Path, pickle: bytes, storages: dict[str, bytes], folder: str = "archive") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{folder}/data.pkl", pickle)
        archive.writestr(f"{folder}/byteorder", "little")
        for key, data in storages.items():
            archive.writestr(f"{folder}/data/{key}", data)
    return path


def write_pt(path: Path, blueprint: Blueprint | None = None) -> Path:
    """klein-nano's face detector, or another one, as Ultralytics would have saved it."""
    value, storages = checkpoint_of(blueprint or read_blueprint(NANO_FILE))
    return write_archive(path, pickled(value), storages)


def small_pictures(count: int, seed: int = 0) -> torch.Tensor:
    """Smooth pictures `[count, 192, 256, 3]`, in steps of 1/255."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 7, 9, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(192, 256), mode="bicubic").clamp(0, 1)
    return (smooth.permute(0, 2, 3, 1) * 255).round() / 255
