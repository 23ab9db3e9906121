"""The YOLO networks v5u, v8, 11 and 26 (detect and segment) as plain PyTorch, built from a `Blueprint`.

Written from the published structure of these networks: convolution blocks, CSP blocks with their attention
variants, pyramid pooling, the anchor-free head with its distribution over distances (Generalized Focal Loss,
arXiv 2006.04388), prototype masks (YOLACT, arXiv 1904.02689). Names of parts are those of the files, so that
weights fit by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..base.errors import InputError
from ..base.sentences import Sentence, say
from .blueprint import Blueprint, Part
from .refusals import no_network, too_large

TRIAL = 128  # side of the picture a new network is tried with
MAX_VALUES = 2**28  # in one feature map


class UnknownLayer(InputError):
    """The file is in order, but made of layers that only Ultralytics itself knows."""


def _not_rebuilt(kind: str) -> Sentence:
    return say("it is made of %1 layers, which Kleinod does not rebuild by itself.", kind[:40])


@dataclass(frozen=True)
class Predictions:
    """What a network says about pictures `[B, 3, H, W]`, for each of its A places.

    boxes `[B, A, 4]` (x0, y0, x1, y1 in pixels of the input), scores `[B, A, classes]` in 0..1; where the
    network outlines: coefficients `[B, A, M]` and prototypes `[B, M, h, w]`. distinct: one place a face, so
    that duplicates need no suppression. stride: pixels between the places of the coarsest feature map.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    coefficients: torch.Tensor | None
    prototypes: torch.Tensor | None
    distinct: bool
    stride: int


class Network(nn.Module):
    """The whole network; `labels` and `size` as in the blueprint, `stride`: sides must be multiples of it."""

    def __init__(self, blueprint: Blueprint) -> None:
        super().__init__()
        self.labels, self.size = blueprint.labels, blueprint.size
        parts = list(blueprint.network.parts.values())
        self.sources = [_sources(part, index) for index, part in enumerate(parts)]
        self.kept = {index for sources in self.sources for index in sources}
        with torch.device("meta"):  # shapes only: the memory is the file's
            self.layers = nn.ModuleList(build(part) for part in parts)
        if not self.layers or not isinstance(self.layers[-1], Detect):
            kind = parts[-1].kind if parts else "nothing"
            raise UnknownLayer(say("it ends in %1: it does not detect boxes.", kind[:40]))
        _load(self.layers, blueprint.weights)
        self.eval().requires_grad_(False)
        self.stride = self._try_out()

    def forward(self, pictures: torch.Tensor) -> Predictions:
        """`[B, 3, H, W]`, RGB in 0..1, sides multiples of `stride`."""
        return self.layers[-1](self.features(pictures), pictures.shape[2])

    def features(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """The feature maps that the head reads, finest first."""
        value: Any = pictures
        kept: dict[int, Any] = {}
        for index, (layer, sources) in enumerate(zip(self.layers, self.sources, strict=True)):
            inputs = [value if source == index - 1 else kept[source] for source in sources]
            if layer is self.layers[-1]:
                return inputs
            value = layer(inputs if isinstance(layer, Concat) else inputs[0])
            if index in self.kept:
                kept[index] = value
        raise no_network("no layers")

    @torch.inference_mode()
    def _try_out(self) -> int:
        try:
            found = self(torch.zeros(1, 3, TRIAL, TRIAL))
        except (RuntimeError, KeyError, IndexError, TypeError, AttributeError, ZeroDivisionError) as error:
            raise no_network("layers that do not fit together") from error
        if found.scores.shape[-1] != len(self.labels):
            raise no_network(f"{len(self.labels)} names for {found.scores.shape[-1]} classes")
        return max(32, found.stride)


def _sources(part: Part, index: int) -> list[int]:
    wanted = part.options.get("f", -1)
    wanted = list(wanted) if isinstance(wanted, tuple) else [wanted]
    sources = [index + source if source < 0 else source for source in wanted if isinstance(source, int)]
    if not sources or len(sources) != len(wanted) or not all(-1 <= source < index for source in sources):
        raise no_network("a source that does not exist")
    if index and -1 in sources:
        raise no_network("a source that does not exist")
    return sources


def _load(layers: nn.ModuleList, weights: dict[str, torch.Tensor]) -> None:
    wanted = {name: tensor.shape for name, tensor in layers.state_dict().items()}
    missing = sorted(set(wanted) - set(weights))
    if missing:
        raise no_network(f"{len(missing)} weights missing, {missing[0][:60]} first")
    for name, shape in wanted.items():
        if weights[name].shape != shape:
            raise no_network(f"{name[:60]} has the shape {tuple(weights[name].shape)}")
    layers.load_state_dict({name: weights[name] for name in wanted}, assign=True)


# --- Parts


class Block(nn.Module):
    """A part made of parts: takes over its inner parts under their names, and its options as attributes."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        for name, inner in part.parts.items():
            self.add_module(name, build(inner))
        self.options = part.options


class Conv(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        x = self.bn(x) if hasattr(self, "bn") else x  # a fused file has none
        return self.act(x) if hasattr(self, "act") else x


class Bottleneck(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.cv2(self.cv1(x))
        return x + inner if self.options.get("add") else inner


class C2f(Block):
    """Splits, runs one half through its blocks, and joins every stage."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stages = list(self.cv1(x).chunk(2, dim=1))
        for block in self.m:
            stages.append(block(stages[-1]))
        return self.cv2(torch.cat(stages, dim=1))


class C3(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), dim=1))


class SPPF(Block):
    """Pyramid pooling: the same small pooling several times over."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stages = [self.cv1(x)]
        for _ in range(min(int(self.options.get("n", 3)), 8)):
            stages.append(self.m(stages[-1]))
        joined = self.cv2(torch.cat(stages, dim=1))
        return joined + x if self.options.get("add") else joined


class Attention(Block):
    """Self-attention over all places of a feature map, with a depthwise convolution as position."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        heads, size, key = (int(self.options[name]) for name in ("num_heads", "head_dim", "key_dim"))
        joined = self.qkv(x).view(batch, heads, 2 * key + size, height * width)
        query, keys, values = joined.split((key, key, size), dim=2)
        weights = ((query * key**-0.5).transpose(-2, -1) @ keys).softmax(dim=-1)
        mixed = (values @ weights.transpose(-2, -1)).view(batch, channels, height, width)
        return self.proj(mixed + self.pe(values.reshape(batch, channels, height, width)))


class PSABlock(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for inner in (self.attn, self.ffn):
            x = x + inner(x) if self.options.get("add", True) else inner(x)
        return x


class C2PSA(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plain, attended = self.cv1(x).chunk(2, dim=1)
        return self.cv2(torch.cat((plain, self.m(attended)), dim=1))


class Concat(Block):
    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        if sum(x.numel() for x in inputs) > MAX_VALUES:
            raise too_large(f"more than {MAX_VALUES:,} values in a layer")
        return torch.cat(inputs, dim=1)


class Upsample(Block):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factor = float(self.options.get("scale_factor", 2.0))
        if self.options.get("mode", "nearest") != "nearest" or not 1 <= factor <= 4:
            raise UnknownLayer(_not_rebuilt("Upsample"))
        if x.numel() * factor**2 > MAX_VALUES:
            raise too_large(f"more than {MAX_VALUES:,} values in a layer")
        return F.interpolate(x, scale_factor=factor, mode="nearest")


class Proto(Block):
    """Prototype masks at twice the finest feature map's size."""

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return self.cv3(self.cv2(self.upsample(self.cv1(features[0]))))


class Proto26(Proto):
    """The same from all feature maps summed at the finest size."""

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        finest = features[0]
        for refine, feature in zip(self.feat_refine, features[1:], strict=True):
            finest = finest + F.interpolate(refine(feature), size=finest.shape[2:], mode="nearest")
        return super().forward([self.feat_fuse(finest)])


class DFL(Block):
    """Distances as the mean of a distribution over whole cells."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, places = x.shape
        bins = channels // 4
        return self.conv(x.view(batch, 4, bins, places).transpose(1, 2).softmax(dim=1)).view(batch, 4, places)


class Detect(Block):
    """Boxes and scores from feature maps of several strides, for pictures `height` pixels high."""

    def forward(self, features: list[torch.Tensor], height: int) -> Predictions:
        distinct = self._is_distinct()
        prefix = "one2one_" if distinct else ""
        distances = self.everywhere(prefix + "cv2", features)
        if int(self.options.get("reg_max", 16)) > 1:
            distances = self.dfl(distances)
        boxes = _to_pixels(distances, features, height).transpose(1, 2)
        scores = self.everywhere(prefix + "cv3", features).sigmoid().transpose(1, 2)
        coefficients = prototypes = None
        if hasattr(self, "proto"):
            coefficients = self.everywhere(prefix + "cv4", features).transpose(1, 2)
            prototypes = self.proto(features)
        coarsest = max(height // feature.shape[2] for feature in features)
        return Predictions(boxes, scores, coefficients, prototypes, distinct, coarsest)

    def _is_distinct(self) -> bool:
        # Files of YOLO26 hold two branches. Ultralytics reads the one that needs suppression unless the file
        # says otherwise or lacks it, and so do we.
        return hasattr(self, "one2one_cv2") and (
            bool(self.options.get("_end2end")) or not hasattr(self, "cv2")
        )

    def everywhere(self, branch: str, features: list[torch.Tensor]) -> torch.Tensor:
        """One branch over all feature maps: `[B, C, A]`."""
        layers = getattr(self, branch)
        return torch.cat([layer(x).flatten(2) for layer, x in zip(layers, features, strict=True)], dim=2)


def _to_pixels(distances: torch.Tensor, features: list[torch.Tensor], height: int) -> torch.Tensor:
    """Distances to left, top, right, bottom `[B, 4, A]`, in cells from each cell's centre, as boxes
    x0, y0, x1, y1 in pixels."""
    centres, strides = [], []
    for feature in features:
        rows, columns = (torch.arange(n, device=feature.device) + 0.5 for n in feature.shape[2:])
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        centres.append(torch.stack((x.flatten(), y.flatten())))
        strides.append(torch.full_like(x.flatten(), height / feature.shape[2]))
    centre, stride = torch.cat(centres, dim=1), torch.cat(strides)
    return torch.cat((centre - distances[:, :2], centre + distances[:, 2:]), dim=1) * stride


# --- From a description to a part

_BLOCKS: dict[str, type[Block]] = {
    "Conv": Conv,
    "DWConv": Conv,
    "Bottleneck": Bottleneck,
    "C2f": C2f,
    "C3k2": C2f,
    "C3": C3,
    "C3k": C3,
    "SPPF": SPPF,
    "Attention": Attention,
    "PSABlock": PSABlock,
    "C2PSA": C2PSA,
    "Concat": Concat,
    "Upsample": Upsample,
    "Proto": Proto,
    "Proto26": Proto26,
    "DFL": DFL,
    "Detect": Detect,
    "v10Detect": Detect,
    "Segment": Detect,
    "Pose": Detect,  # its key points are not read
    "Segment26": Detect,
}
_ACTIVATIONS = {
    "SiLU": nn.SiLU,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "Hardswish": nn.Hardswish,
    "Identity": nn.Identity,
}


def build(part: Part) -> nn.Module:
    """The module of a part, without weights. UnknownLayer for a kind that is not rebuilt here."""
    options = part.options
    if part.kind in _BLOCKS:
        return _BLOCKS[part.kind](part)
    if part.kind == "Sequential":
        return nn.Sequential(*(build(inner) for inner in part.parts.values()))
    if part.kind == "ModuleList":
        return nn.ModuleList(build(inner) for inner in part.parts.values())
    if part.kind in _ACTIVATIONS:
        return _ACTIVATIONS[part.kind]()
    try:
        if part.kind == "LeakyReLU":
            return nn.LeakyReLU(options.get("negative_slope", 0.01))
        if part.kind == "BatchNorm2d":
            return nn.BatchNorm2d(options["num_features"], eps=options.get("eps", 1e-5))
        if part.kind in ("Conv2d", "ConvTranspose2d"):
            return _convolution(part)
        if part.kind == "MaxPool2d":
            side, stride, padding = (options[name] for name in ("kernel_size", "stride", "padding"))
            _require_small(side, stride, padding)
            return nn.MaxPool2d(side, stride, padding)
    except (KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise no_network(f"{part.kind} with impossible numbers") from error
    raise UnknownLayer(_not_rebuilt(part.kind))


def _convolution(part: Part) -> nn.Module:
    options = {name: value for name, value in part.options.items() if name != "f"}
    _require_small(*(options[name] for name in ("kernel_size", "stride", "padding", "dilation")))
    if min(options["in_channels"], options["out_channels"]) < 1:
        raise ValueError("channels")
    kind = nn.Conv2d if part.kind == "Conv2d" else nn.ConvTranspose2d
    return kind(**options)


def _require_small(*numbers: int | tuple[int, ...]) -> None:
    flat = [n for number in numbers for n in (number if isinstance(number, tuple) else (number,))]
    if not all(type(n) is int and 0 <= n <= 16 for n in flat):
        raise ValueError("kernel")
