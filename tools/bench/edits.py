"""`run.py bench edits`: what is left of a picture that an edit model spoilt as a whole.

Photographs are moved, zoomed, tinted and compressed as edit models do it, by a spline of order 5 that shares
no code with Klein Keep, and a patch of another photograph stands for the edit. Then Klein Keep has to find
place, colours and patch. The baseline is what people use: the difference of both pictures, a threshold
chosen by Otsu's method, opened and dilated, pasted over the original. What klein-nano paints is measured in
`_edits_nano.py`, what references weigh in `_references_nano.py`.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from tools.bench._photographs import load_photographs
from tools.bench.report import Row, row_of_samples
from tools.launch.environment import ROOT
from tools.launch.pack import enable_comfyui, load_pack

QUALITIES = (None, 92, 80)


@dataclass(frozen=True)
class Fault:
    """What is done to the whole picture. scale and shift about its middle, in pixels; gain and offset of each
    channel; quality of JPEG or None; patch: bool `[H, W]` of what was edited, or None."""

    scale: float
    shift: tuple[float, float]
    gain: tuple[float, float, float]
    offset: tuple[float, float, float]
    quality: int | None
    patch: np.ndarray | None


def draw_fault(rng: np.random.Generator, height: int, width: int, index: int) -> Fault:
    """Up to 2% zoom, 0.3 to 4 pixels, 7% gain and 4% offset a channel; every fourth has no patch."""
    angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 4)
    patch = None
    if index % 4 != 3:
        y, x = np.mgrid[0:height, 0:width]
        middle_x, middle_y = rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height
        half_x, half_y = rng.uniform(0.08, 0.25) * width, rng.uniform(0.08, 0.25) * height
        across, down = (x - middle_x) / half_x, (y - middle_y) / half_y
        patch = across**2 + down**2 < 1 if index % 2 else np.maximum(abs(across), abs(down)) < 1
    return Fault(
        scale=1 + rng.uniform(-0.02, 0.02),
        shift=(far * math.cos(angle), far * math.sin(angle)),
        gain=tuple(rng.uniform(0.93, 1.07, 3)),
        offset=tuple(rng.uniform(-0.04, 0.04, 3)),
        quality=QUALITIES[index % len(QUALITIES)],
        patch=patch,
    )


def spoil(picture: np.ndarray, fault: Fault, other: np.ndarray) -> np.ndarray:
    """`[H, W, 3]` in 0..1 with the patch from `other`, then all the fault does to the whole of it."""
    height, width, _ = picture.shape
    if fault.patch is not None:
        picture = np.where(fault.patch[..., None], _resized(other, height, width), picture)
    y, x = np.mgrid[0:height, 0:width].astype(float)
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    at_x = (x - middle_x - fault.shift[0]) / fault.scale + middle_x
    at_y = (y - middle_y - fault.shift[1]) / fault.scale + middle_y
    planes = np.moveaxis(picture, -1, 0)
    moved = [ndimage.map_coordinates(plane, [at_y, at_x], order=5, mode="reflect") for plane in planes]
    spoilt = (np.stack(moved, -1) * fault.gain + fault.offset).clip(0, 1)
    stream = io.BytesIO()
    eight_bit = Image.fromarray((spoilt * 255 + 0.5).astype(np.uint8))
    if fault.quality is None:
        return np.asarray(eight_bit, np.float64) / 255
    eight_bit.save(stream, "JPEG", quality=fault.quality)
    return np.asarray(Image.open(stream), np.float64) / 255


def paste_difference(original: np.ndarray, edited: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The baseline: the picture, and the mask it used."""
    difference = np.abs(original - edited).mean(axis=-1)
    mask = difference > _otsu(difference)
    mask = ndimage.binary_dilation(ndimage.binary_opening(mask, iterations=2), iterations=6)
    return np.where(mask[..., None], edited, original), mask


def _otsu(values: np.ndarray) -> float:
    counts, edges = np.histogram(values, bins=256)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    sums = np.cumsum(counts * middles)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(middles[int(np.nanargmax(between[:-1]))])


def _resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    image = Image.fromarray((picture * 255 + 0.5).astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS), np.float64) / 255


def run(arguments: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="run.py bench edits", allow_abbrev=False)
    parser.add_argument("--every", type=int, default=4, help="faults a photograph, 0: none; %(default)s")
    parser.add_argument("--cases", type=int, default=8, help="paintings a kind, 0: none; %(default)s")
    parser.add_argument("--references", type=int, default=8, help="edits a dial, 0: none; %(default)s")
    parser.add_argument("--pictures", type=Path, help="a folder for the results, to look at")
    options = parser.parse_args(arguments)
    enable_comfyui(Path(os.environ["COMFYUI_PATH"]))
    load_pack(ROOT)
    rows = measure_keep(options.every, options.pictures) if options.every else []
    if options.cases:
        from tools.bench._edits_nano import measure_paintings

        rows += measure_paintings(options.cases, options.pictures)
    if options.references:
        from tools.bench._references_nano import measure_references

        rows += measure_references(options.references)
    return rows


def measure_keep(every: int, folder: Path | None = None) -> list[Row]:
    """Klein Keep and its baseline on every photograph with `every` faults each."""
    import torch
    from kleinod.nodes.edits.keep import KeepSettings, keep
    from kleinod.nodes.edits.tint import delta_e

    def as_image(picture: np.ndarray) -> torch.Tensor:
        return torch.tensor(picture, dtype=torch.float32)

    def off(picture: np.ndarray, original: np.ndarray, where: np.ndarray) -> float:
        return float(delta_e(as_image(picture), as_image(original)).numpy()[where].mean())

    rng = np.random.default_rng(11)
    photographs = load_photographs()
    names = list(photographs)
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for number, name in enumerate(names):
        original = photographs[name]
        for index in range(every):
            fault = draw_fault(rng, *original.shape[:2], index)
            edited = spoil(original, fault, photographs[names[(number + index + 1) % len(names)]])
            started = time.perf_counter()
            kept = keep(as_image(original), as_image(edited), None, KeepSettings(grow=0, feather=0))
            note("Keep: seconds a megapixel", (time.perf_counter() - started) / original[..., 0].size * 1e6)
            miss = math.hypot(kept.place.shift[0] - fault.shift[0], kept.place.shift[1] - fault.shift[1])
            note("Keep: shift off by", miss)
            pasted, pasted_mask = paste_difference(original, edited)
            if fault.patch is None:
                for title, same in (
                    ("Keep", torch.equal(kept.picture, as_image(original))),
                    ("difference pasted", np.array_equal(pasted, original)),
                ):
                    note(f"{title}: no change returns the original", float(same))
                continue
            rest = ~fault.patch
            mask = kept.mask.numpy() > 0
            note("delta E of the rest, edit as it came", off(edited, original, rest))
            for title, picture, used in (
                ("Keep", kept.picture.numpy(), mask),
                ("difference pasted", pasted, pasted_mask),
            ):
                note(f"{title}: delta E of the rest", off(picture, original, rest))
                shared, either = (used & fault.patch).sum(), (used | fault.patch).sum()
                note(f"{title}: IoU of the change", float(shared / either))
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                row = np.concatenate([original, edited, pasted, kept.picture.numpy()], axis=1)
                Image.fromarray((row * 255 + 0.5).astype(np.uint8)).save(folder / f"{name}-{index}.jpg")
    goals = {
        "Keep: shift off by": "<= 0.1",
        "Keep: delta E of the rest": "<= 0.5",
        "Keep: IoU of the change": ">= 0.9",
        "Keep: no change returns the original": ">= 1",
    }
    units = {"Keep: shift off by": "px", "Keep: seconds a megapixel": "s"}
    rows = [
        row_of_samples(name, values, units.get(name, ""), goals.get(name)) for name, values in found.items()
    ]
    for name, worst in (
        ("Keep: shift off by", max),
        ("Keep: delta E of the rest", max),
        ("Keep: IoU of the change", min),
        ("Keep: no change returns the original", min),
    ):
        value = worst(found[name])
        rows.append(Row(f"{name}, worst", value, units.get(name, ""), n=len(found[name]), goal=goals[name]))
    return rows
