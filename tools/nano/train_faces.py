"""Train klein-nano's face detector: `python -m tools.nano.train_faces OUTPUT.safetensors --minutes 25`.

The network has the layout of YOLOv8 at half the width of its smallest size and is built by the pack's own
`nodes/faces/network.py`; scenes come from `face_scenes.py`. The training is ours too, after the papers:
task-aligned assignment (TOOD, arXiv 2108.07755), complete-IoU loss (arXiv 1911.08287), distribution focal
loss (arXiv 2006.04388). Neither Ultralytics' code nor its weights take part, so its licence does not reach
the result. The learning rate follows the clock.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from .codec import ROOT
from .face_scenes import SIZE, training_scene

# The pack's pure modules without its ComfyUI part, as in tests/conftest.py.
_pure = sys.modules.setdefault("kleinod_pure", ModuleType("kleinod_pure"))
_pure.__path__ = [str(ROOT / "nodes")]

from kleinod_pure.faces.blueprint import Blueprint, Part, metadata_of, read_blueprint  # noqa: E402
from kleinod_pure.faces.network import Network, build  # noqa: E402

WIDTHS = (8, 16, 32, 64, 128)
BINS = 8
RATE = 2.5e-3
CANDIDATES = 10
GAINS = {"scores": 0.5, "boxes": 7.5, "distances": 1.5}


# --- The network's description


def _conv(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, source: int | None = None) -> Part:
    numbers = {
        "in_channels": c_in,
        "out_channels": c_out,
        "kernel_size": (kernel, kernel),
        "stride": (stride, stride),
        "padding": (kernel // 2, kernel // 2),
        "dilation": (1, 1),
        "groups": 1,
        "bias": False,
    }
    parts = {
        "conv": Part("Conv2d", numbers, {}),
        "bn": Part("BatchNorm2d", {"num_features": c_out, "eps": 1e-3}, {}),
        "act": Part("SiLU", {}, {}),
    }
    return Part("Conv", {} if source is None else {"f": source}, parts)


def _plain(c_in: int, c_out: int, bias: bool = True) -> Part:
    convolution = _conv(c_in, c_out).parts["conv"]
    return Part("Conv2d", {**convolution.options, "bias": bias}, {})


def _sequence(kind: str, parts: list[Part]) -> Part:
    return Part(kind, {}, {str(i): part for i, part in enumerate(parts)})


def _c2f(c_in: int, c_out: int, repeats: int, add: bool) -> Part:
    half = c_out // 2
    inner = [
        Part("Bottleneck", {"add": add}, {"cv1": _conv(half, half, 3), "cv2": _conv(half, half, 3)})
        for _ in range(repeats)
    ]
    outer = {
        "cv1": _conv(c_in, 2 * half),
        "cv2": _conv((2 + repeats) * half, c_out),
        "m": _sequence("ModuleList", inner),
    }
    return Part("C2f", {}, outer)


def _sppf(channels: int) -> Part:
    half = channels // 2
    pool = Part("MaxPool2d", {"kernel_size": 5, "stride": 1, "padding": 2}, {})
    return Part("SPPF", {"n": 3}, {"cv1": _conv(channels, half), "cv2": _conv(4 * half, channels), "m": pool})


def _head(channels: tuple[int, ...]) -> Part:
    middle, outer = max(16, channels[0] // 4, 4 * BINS), max(channels[0], 1)

    def branch(c: int, width: int, last: int) -> Part:
        return _sequence("Sequential", [_conv(c, width, 3), _conv(width, width, 3), _plain(width, last)])

    parts = {
        "cv2": _sequence("ModuleList", [branch(c, middle, 4 * BINS) for c in channels]),
        "cv3": _sequence("ModuleList", [branch(c, outer, 1) for c in channels]),
        "dfl": Part("DFL", {}, {"conv": _plain(BINS, 1, bias=False)}),
    }
    return Part("Detect", {"nc": 1, "reg_max": BINS, "f": (15, 18, 21)}, parts)


def describe_network() -> Part:
    """YOLOv8's layers, in order, at our widths."""
    a, b, c, d, e = WIDTHS
    up = Part("Upsample", {"scale_factor": 2.0, "mode": "nearest"}, {})

    def join(*sources: int) -> Part:
        return Part("Concat", {"f": sources, "d": 1}, {})

    return _sequence(
        "Sequential",
        [
            _conv(3, a, 3, 2),
            _conv(a, b, 3, 2),
            _c2f(b, b, 1, True),
            _conv(b, c, 3, 2),
            _c2f(c, c, 2, True),
            _conv(c, d, 3, 2),
            _c2f(d, d, 2, True),
            _conv(d, e, 3, 2),
            _c2f(e, e, 1, True),
            _sppf(e),
            up,
            join(-1, 6),
            _c2f(d + e, d, 1, False),
            up,
            join(-1, 4),
            _c2f(c + d, c, 1, False),
            _conv(c, c, 3, 2),
            join(-1, 12),
            _c2f(c + d, d, 1, False),
            _conv(d, d, 3, 2),
            join(-1, 9),
            _c2f(d + e, e, 1, False),
            _head((c, d, e)),
        ],
    )


def fresh_weights(network: Part, seed: int) -> dict[str, Tensor]:
    """Starting weights; the score's bias says how rare a face is."""
    torch.manual_seed(seed)
    weights = {
        f"{index}.{name}": tensor.detach().clone()
        for index, part in enumerate(network.parts.values())
        for name, tensor in build(part).state_dict().items()
    }
    last = len(network.parts) - 1
    weights[f"{last}.dfl.conv.weight"] = torch.arange(BINS, dtype=torch.float32).view(1, BINS, 1, 1)
    for level in range(3):
        weights[f"{last}.cv2.{level}.2.bias"].fill_(1.0)
        weights[f"{last}.cv3.{level}.2.bias"].fill_(math.log(5 / (SIZE / 2 ** (3 + level)) ** 2))
    return weights


# --- The loss


def overlap(a: Tensor, b: Tensor, complete: bool = False) -> Tensor:
    """Intersection over union of boxes x0, y0, x1, y1, broadcast; the complete one for the loss."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    size_a, size_b = (a[..., 2:] - a[..., :2]).clamp(min=1e-4), (b[..., 2:] - b[..., :2]).clamp(min=1e-4)
    iou = shared / (size_a.prod(-1) + size_b.prod(-1) - shared + 1e-7)
    if not complete:
        return iou
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    distance = ((a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) ** 2).sum(-1) / 4
    turn_a, turn_b = (torch.atan(size[..., 0] / size[..., 1]) for size in (size_a, size_b))
    shape = 4 / math.pi**2 * (turn_b - turn_a) ** 2
    weight = (shape / (shape - iou + 1 + 1e-7)).detach()
    return iou - distance / ((hull**2).sum(-1) + 1e-7) - weight * shape


def assign(scores: Tensor, boxes: Tensor, places: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """For one picture: which true box each place answers for (-1: none), and the score it should give.

    scores `[A]`, boxes `[A, 4]`, places `[A, 2]`, truth `[G, 4]`.
    """
    index, target = torch.full_like(scores, -1, dtype=torch.long), torch.zeros_like(scores)
    if not len(truth):
        return index, target
    inside = ((places[None] > truth[:, None, :2]) & (places[None] < truth[:, None, 2:])).all(-1)
    iou = overlap(truth[:, None], boxes[None]) * inside
    aligned = scores[None].sqrt() * iou**6
    best = aligned.topk(min(CANDIDATES, aligned.shape[1]), dim=1)
    chosen = torch.zeros_like(inside).scatter_(1, best.indices, True) & inside & (aligned > 0)
    owner = torch.where(chosen, iou, torch.full_like(iou, -1)).argmax(0)
    answers = chosen.any(0)
    index[answers] = owner[answers]
    chosen &= torch.arange(len(truth))[:, None] == index[None]
    aligned, iou = aligned * chosen, iou * chosen
    share = aligned / (aligned.amax(1, keepdim=True) + 1e-9) * iou.amax(1, keepdim=True)
    return index, share.amax(0)


def loss_of(network: Network, pictures: Tensor, truths: list[Tensor]) -> Tensor:
    head = network.layers[-1]
    features = network.features(pictures)
    logits = head.everywhere("cv3", features)[:, 0]
    raw = head.everywhere("cv2", features)
    places, strides = _places(features)
    bins = raw.view(len(pictures), 4, BINS, -1)
    distances = (bins.softmax(2) * torch.arange(BINS, dtype=torch.float32).view(1, 1, BINS, 1)).sum(2)
    centres = (places / strides[:, None]).T
    cells = torch.cat((centres - distances[:, :2], centres + distances[:, 2:]), 1)
    boxes = (cells * strides).transpose(1, 2)
    targets, lost_boxes, lost_bins, total = torch.zeros_like(logits), 0.0, 0.0, 0.0
    for i, truth in enumerate(truths):
        with torch.no_grad():
            index, targets[i] = assign(logits[i].sigmoid(), boxes[i], places, truth)
        where = (index >= 0).nonzero()[:, 0]
        if not len(where):
            continue
        wanted, weight = truth[index[where]], targets[i, where]
        lost_boxes = lost_boxes + ((1 - overlap(boxes[i, where], wanted, complete=True)) * weight).sum()
        sides = torch.cat((places[where] - wanted[:, :2], wanted[:, 2:] - places[where]), 1)
        sides = (sides / strides[where, None]).clamp(0, BINS - 1.01)
        below = sides.long()
        rest = sides - below
        guess = bins[i, :, :, where].permute(2, 0, 1).reshape(-1, BINS)  # [P * 4, BINS]
        down = F.cross_entropy(guess, below.flatten(), reduction="none").view(-1, 4)
        up = F.cross_entropy(guess, below.flatten() + 1, reduction="none").view(-1, 4)
        lost_bins = lost_bins + ((down * (1 - rest) + up * rest).mean(1) * weight).sum()
        total = total + weight.sum()
    lost_scores = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    share = max(float(total), 1.0)
    return (
        GAINS["scores"] * lost_scores + GAINS["boxes"] * lost_boxes + GAINS["distances"] * lost_bins
    ) / share


def _places(features: list[Tensor]) -> tuple[Tensor, Tensor]:
    places, strides = [], []
    for feature in features:
        stride = SIZE / feature.shape[2]
        y, x = torch.meshgrid(*((torch.arange(n) + 0.5) * stride for n in feature.shape[2:]), indexing="ij")
        places.append(torch.stack((x.flatten(), y.flatten()), 1))
        strides.append(torch.full((len(places[-1]),), stride))
    return torch.cat(places), torch.cat(strides)


# --- The training


def make_batch(rng: np.random.Generator, count: int) -> tuple[Tensor, list[Tensor]]:
    scenes = [training_scene(rng) for _ in range(count)]
    pictures = torch.from_numpy(np.stack([picture for picture, _ in scenes])).permute(0, 3, 1, 2).contiguous()
    return pictures, [torch.tensor(boxes, dtype=torch.float32).view(-1, 4) for _, boxes in scenes]


def train(minutes: float, batch: int, seed: int, start: str | None = None) -> Network:
    """A network trained for that long, from the weights in the file `start` where there is one."""
    part = describe_network()
    weights = read_blueprint(start).weights if start else fresh_weights(part, seed)
    network = Network(Blueprint(part, ("face",), SIZE, weights))
    rate = RATE / 2 if start else RATE
    network.train().requires_grad_(True)
    average = copy.deepcopy(network)
    plain = [p for p in network.parameters() if p.ndim < 2]
    heavy = [p for p in network.parameters() if p.ndim >= 2]
    optimiser = torch.optim.AdamW(
        [{"params": heavy, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}], betas=(0.9, 0.98)
    )
    rng = np.random.default_rng(seed)
    started, step, shown = time.monotonic(), 0, 0.0
    while (done := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100, 2 * (1 - done))
        loss = loss_of(network, *make_batch(rng, batch))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
        step += 1
        decay = min(0.998, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value, 1 - decay)
        shown = loss.item() if step == 1 else 0.98 * shown + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"step {step}  {done:.0%}  loss {shown:.3f}", flush=True)
    return average.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("output")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", help="continue from this file")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = train(options.minutes, options.batch, options.seed, options.start)
    state = network.layers.state_dict()
    weights = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    save_file(weights, options.output, metadata_of(Blueprint(describe_network(), ("face",), SIZE, {})))
    print(f"{options.output}: {sum(w.numel() for w in weights.values()):,} numbers")


if __name__ == "__main__":
    main()
