"""How a detector is built: a tree of named parts with a few checked numbers each, and its weights by name.

A blueprint comes out of a YOLO .pt file (`torch_file.py`) or out of our own .safetensors, whose metadata
holds it as JSON under `METADATA_KEY`. `network.py` builds the network from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .pickles import Record, TensorPlan
from .refusals import bare_weights, damaged, no_network, strange, too_large
from .torch_file import TorchFile, find_model

METADATA_KEY = "kleinod_detector"
MAX_PARTS = 20_000
MAX_DEPTH = 24
STANDARD_SIZE = 640
_MAX_NUMBER = 65_536

# The numbers a part is built from; everything else in a file is left unread.
_CONVOLUTION = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "bias",
)
OPTIONS: dict[str, tuple[str, ...]] = {
    "Conv2d": _CONVOLUTION,
    "ConvTranspose2d": (*_CONVOLUTION, "output_padding"),
    "BatchNorm2d": ("num_features", "eps"),
    "MaxPool2d": ("kernel_size", "stride", "padding"),
    "Upsample": ("scale_factor", "mode"),
    "LeakyReLU": ("negative_slope",),
    "Concat": ("d",),
    "Bottleneck": ("add",),
    "PSABlock": ("add",),
    "SPPF": ("n", "add"),
    "Attention": ("num_heads", "head_dim", "key_dim"),
    "DFL": ("c1",),
    "Detect": ("nc", "reg_max", "_end2end"),
}
for _head in ("v10Detect", "Segment", "Segment26", "Pose"):
    OPTIONS[_head] = OPTIONS["Detect"]


@dataclass(frozen=True)
class Part:
    """A layer or block: its kind (class name), its numbers, and the parts inside it in order."""

    kind: str
    options: dict[str, Any]
    parts: dict[str, Part]

    def to_json(self) -> dict[str, Any]:
        inner = {name: part.to_json() for name, part in self.parts.items()}
        return {"kind": self.kind, "options": self.options, "parts": inner}


@dataclass(frozen=True)
class Blueprint:
    """network: the layers in order, each with its sources in option `f`. labels: the classes' names in order.
    size: the picture side the detector was trained with. weights: float32 by dotted name.
    """

    network: Part
    labels: tuple[str, ...]
    size: int
    weights: dict[str, torch.Tensor]


def read_blueprint(path: str | Path) -> Blueprint:
    """The blueprint in a .pt, .pth or .safetensors file; ValueError with a half sentence about the file."""
    if Path(path).suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    with TorchFile(path) as file:
        model = find_model(file.value)
        count = Counter()
        layers = _child(model, "model")
        network = part_of(layers, count, 0)
        plans = dict(_plans(layers, ""))
        if sum(_bytes(plan) for plan in plans.values()) > 2 * Path(path).stat().st_size:
            raise strange("the same numbers many times over")
        weights = {name: _as_float(file.tensor(plan)) for name, plan in plans.items()}
        return Blueprint(network, _labels(model.state.get("names")), _trained_size(file.value), weights)


def metadata_of(blueprint: Blueprint) -> dict[str, str]:
    """What to save beside the weights in a .safetensors file so that `read_blueprint` finds it again."""
    described = {
        "format": 1,
        "labels": list(blueprint.labels),
        "size": blueprint.size,
        "network": blueprint.network.to_json(),
    }
    return {METADATA_KEY: json.dumps(described, separators=(",", ":"))}


def _read_safetensors(path: str | Path) -> Blueprint:
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            if text is None:
                raise bare_weights()
            weights = {name: _as_float(file.get_tensor(name)) for name in file.keys()}
    except (SafetensorError, OSError, RuntimeError) as error:
        raise damaged(type(error).__name__) from error
    try:
        described = json.loads(text)
        network = _part_from_json(described["network"], Counter(), 0)
        return Blueprint(network, _labels(described["labels"]), _size(described["size"]), weights)
    except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
        raise damaged("description of the network") from error


class Counter:
    """Counts parts, so that a small file cannot unfold into an endless tree."""

    def __init__(self) -> None:
        self.count = 0

    def step(self, depth: int) -> None:
        self.count += 1
        if self.count > MAX_PARTS or depth > MAX_DEPTH:
            raise too_large(f"{self.count:,} layers")


def part_of(record: Any, counter: Counter, depth: int = 0) -> Part:
    """The part a record of a torch module describes."""
    counter.step(depth)
    if not isinstance(record, Record):
        raise no_network("a layer that is none")
    parameters = record.state.get("_parameters")
    bias = isinstance(parameters, dict) and parameters.get("bias") is not None
    options = _options(record.kind, {**record.state, "bias": bias})
    return Part(
        record.kind,
        options,
        {name: part_of(child, counter, depth + 1) for name, child in _children(record) if child is not None},
    )


def _part_from_json(described: dict, counter: Counter, depth: int) -> Part:
    counter.step(depth)
    kind = described["kind"]
    if not isinstance(kind, str):
        raise TypeError("kind")
    inner = {
        _name(name): _part_from_json(part, counter, depth + 1) for name, part in described["parts"].items()
    }
    return Part(kind, _options(kind, described["options"]), inner)


def _options(kind: str, state: dict) -> dict[str, Any]:
    wanted = (*OPTIONS.get(kind, ()), "f")
    return {name: _checked(name, state[name]) for name in wanted if state.get(name) is not None}


def _checked(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple) and len(value) <= 16:
        return tuple(_checked(name, item) for item in value)
    if isinstance(value, str) and len(value) <= 16:
        return value
    if isinstance(value, bool | int | float) and abs(value) <= _MAX_NUMBER:
        return value
    raise no_network(f"{name} is {str(value)[:40]}")


def _children(record: Record) -> Iterator[tuple[str, Any]]:
    children = record.state.get("_modules") or {}
    if not isinstance(children, dict):
        raise no_network("layers in no dict")
    for name, child in children.items():
        yield _name(name), child


def _child(record: Record, name: str) -> Record:
    child = dict(_children(record)).get(name)
    if not isinstance(child, Record):
        raise no_network("no layers")
    return child


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.replace("_", "a").isalnum():
        raise no_network("a layer of an impossible name")
    return name


def _plans(record: Record, prefix: str) -> Iterator[tuple[str, TensorPlan]]:
    """Weights and buffers by dotted name. Bounded, because `part_of` has walked the same tree before."""
    for group in ("_parameters", "_buffers"):
        held = record.state.get(group) or {}
        for name, plan in held.items() if isinstance(held, dict) else ():
            if isinstance(plan, TensorPlan):
                yield f"{prefix}{_name(name)}", plan
    for name, child in _children(record):
        if child is not None:
            yield from _plans(child, f"{prefix}{name}.")


def _bytes(plan: TensorPlan) -> int:
    count = getattr(torch, plan.storage.dtype).itemsize
    for length in plan.size:
        count *= length
    return count


def _as_float(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _labels(names: Any) -> tuple[str, ...]:
    if isinstance(names, dict):
        names = [names[key] for key in sorted(key for key in names if isinstance(key, int))]
    if not isinstance(names, list | tuple) or len(names) > _MAX_NUMBER:
        raise no_network("no names of classes")
    return tuple("".join(letter for letter in str(name)[:60] if letter.isprintable()) for name in names)


def _trained_size(value: Any) -> int:
    arguments = value.get("train_args") if isinstance(value, dict) else None
    if isinstance(arguments, Record):
        arguments = arguments.state
    return _size(arguments.get("imgsz", STANDARD_SIZE) if isinstance(arguments, dict) else STANDARD_SIZE)


def _size(value: Any) -> int:
    if isinstance(value, list | tuple) and value:
        value = max((side for side in value if isinstance(side, int)), default=STANDARD_SIZE)
    return min(max(value, 64), 2048) if isinstance(value, int) else STANDARD_SIZE
