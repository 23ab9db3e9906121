"""The part of `run.py bench edits` that paints: klein-nano replaces a subject, a background, grows a picture.

Scored by the judge of `tools/nano`, which knows the drawings and never saw a generated picture. The baselines
are what people use today, written here from scratch: core's latent mask, a crop that is resampled in 8 bits
and pasted through a blurred mask, and a free edit of which the thresholded difference is pasted. Every number
is klein-nano's and says nothing about the real weights.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from tools.bench.nano import Painter
from tools.bench.report import Row, row_of_samples
from tools.nano import world
from tools.nano.judge import Judge

STEPS, GUIDANCE = 20, 4.0
OVERLAP = 8
BESIDE = 3, 7
"""Pixels from an edge between which the gradient counts as beside it."""
OUTPAINT, CROP, WHOLE, KEEP = (
    "Klein Outpaint",
    "Klein Inpaint, crop",
    "Klein Inpaint, whole picture",
    "Klein Keep",
)
FILL_STRENGTH = 0.85
"""Where what stands in the new part at first decides something: from pure noise it hardly does."""
FLOOR = 1 / 255
"""A gradient that no eye sees: below it two flat sides would make any edge a seam."""


@dataclass(frozen=True)
class Case:
    """picture: uint8 `[H, W, 3]`. mask: bool, what is to change. words: of the whole new picture. part: of
    the masked part alone, for crops. edit: as an instruction on image 1. shown, colour: what the judge should
    then name. pad: pixels added at the right."""

    kind: str
    picture: np.ndarray
    mask: np.ndarray
    words: str
    part: str
    edit: str
    shown: tuple[int, ...]
    colour: int
    pad: int = 0

    @property
    def image(self) -> np.ndarray:
        return self.picture.astype(np.float32) / 255


@dataclass
class Score:
    """Samples of one way to do one kind of edit."""

    right: list[bool] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    off: list[float] = field(default_factory=list)
    seam: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def draw_cases(count: int, seed: int = 31) -> Iterator[Case]:
    """`count` of each kind; subjects and colours are drawn anew for each."""
    rng = np.random.default_rng(seed)
    names, grounds = world.NAMES, world.COLOURS
    for number in range(count):
        first, second, new = (int(i) for i in rng.choice(len(names), 3, replace=False))
        colour, other = (int(i) for i in rng.choice(len(grounds), 2, replace=False))
        one, two, third = (world.with_article(names[i]) for i in (first, second, new))
        left = number % 2 == 0  # which of both is replaced
        placed = [world.jittered(first, rng), world.jittered(second, rng)]
        pair = world.paint(placed, colour)
        ground = f"on a {grounds[colour]} background"
        mask = np.zeros(pair.shape[:2], bool)
        at = placed[0] if left else placed[1]
        x, y = (0 if left else 96) + 6 + at.dx, 22 + at.dy
        mask[max(0, y - 3) : y + 87, max(0, x - 3) : x + 87] = True
        shown = (new, second) if left else (first, new)
        words = f"{third} next to {two}" if left else f"{one} next to {third}"
        yield Case(
            "subject",
            pair,
            mask,
            f"{words} {ground}",
            f"{third} {ground}",
            f"{words} {ground}",
            shown,
            colour,
        )
        single = world.paint([at], colour)
        alpha = np.zeros((world.SIZE, world.SIZE), bool)
        kept = world.drawing(at.subject)[..., 3] > 0.02
        top, start = 22 + at.dy, 22 + at.dx
        alpha[top : top + 84, start : start + 84] = kept
        subject = one if left else two
        anew = f"on a {grounds[other]} background"
        yield Case(
            "background", single, ~alpha, f"{subject} {anew}", f"{subject} {anew}", f"image 1 {anew}",
            (at.subject,), other,
        )  # fmt: skip
        yield Case(
            "outpaint", np.ascontiguousarray(pair[:, :128]), np.zeros((128, 128), bool),
            f"{one} next to {two} {ground}", f"{one} next to {two} {ground}",
            f"{one} next to {two} {ground}", (first, second), colour, pad=64,
        )  # fmt: skip


class Studio:
    """Everything that paints, ours and theirs, by one model and one seed a case."""

    def __init__(self) -> None:
        self.painter = Painter()
        from kleinod.nodes.edits import keep
        from kleinod.nodes.edits.canvas import OutpaintRequest
        from kleinod.nodes.edits.painting import inpaint, outpaint
        from kleinod.nodes.edits.request import InpaintRequest
        from kleinod.nodes.edits.tint import delta_e
        from kleinod.nodes.regions.painter import PaintInputs

        self.keep, self.delta_e = keep, delta_e
        self.inpaint, self.outpaint = inpaint, outpaint
        self.to_inpaint, self.to_outpaint = InpaintRequest, OutpaintRequest
        self.inputs = PaintInputs(self.painter.model, self.painter.clip, self.painter.vae)

    def image(self, picture: np.ndarray) -> Any:
        return self.painter.torch.from_numpy(np.ascontiguousarray(picture, np.float32))

    def paint(self, case: Case, seed: int, **change: Any) -> tuple[np.ndarray, np.ndarray]:
        """Ours: the picture, and the mask of what may have changed, 0..1."""
        whole = change.get("area") == "whole picture"
        shared = {"steps": STEPS, "guidance": GUIDANCE, "seed": seed}
        with self.painter.torch.inference_mode():
            image = self.image(case.image)[None]
            if case.pad:
                request = self.to_outpaint(
                    prompt=case.words, right=case.pad, overlap=OVERLAP, **shared, **change
                )
                made = self.outpaint(image, self.inputs, request)
            else:
                words = case.words if whole else case.part
                request = self.to_inpaint(prompt=words, **shared, **change)
                made = self.inpaint(image, self.image(case.mask)[None], self.inputs, request)
        return made.image[0].numpy(), made.mask[0].numpy()

    def _sample(self, pixels: np.ndarray, mask: np.ndarray | None, words: str, seed: int) -> np.ndarray:
        """Core's own way: the picture as latent, its mask on the latent, CFG and Euler."""
        import comfy.sample
        import comfy.samplers
        from kleinod.nodes.sampling.schedule import build_schedule

        painter, torch = self.painter, self.painter.torch
        with torch.inference_mode():
            positive, negative = painter.prompt.execute(painter.clip, words, "").args[:2]
            latent = painter.vae.encode(self.image(pixels)[None])
            guider = comfy.samplers.CFGGuider(painter.model)
            guider.set_conds(positive, negative)
            guider.set_cfg(GUIDANCE)
            cells = latent.shape[2] * latent.shape[3]
            result = guider.sample(
                comfy.sample.prepare_noise(latent, seed),
                latent,
                comfy.samplers.sampler_object("euler"),
                build_schedule("native", STEPS, cells).sigmas,
                denoise_mask=None if mask is None else self.image(mask)[None],
                disable_pbar=True,
                seed=seed,
            )
            return painter.vae.decode(result)[0].numpy()

    def mask_latent(self, case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Set Latent Noise Mask on the whole picture; for outpainting behind Pad Image for Outpainting."""
        pixels, mask = pad(case)
        return self._sample(pixels, mask, case.words, seed), mask

    def paste_crop(self, case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """A square around the mask, resampled to 128 in 8 bits, sampled, pasted through a blurred mask."""
        pixels, mask = pad(case)
        height, width = mask.shape
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        side = min(height, width, round(1.25 * max(np.ptp(rows), np.ptp(columns))))
        left = int(np.clip((columns[0] + columns[-1] - side) // 2, 0, width - side))
        top = int(np.clip((rows[0] + rows[-1] - side) // 2, 0, height - side))
        window = slice(top, top + side), slice(left, left + side)
        size = (world.SIZE, world.SIZE)
        crop = np.asarray(to_picture(pixels[window]).resize(size, Image.LANCZOS), np.float32) / 255
        shown = Image.fromarray(mask[window]).resize(size, Image.NEAREST)
        words = case.part if case.kind == "subject" else case.words
        painted = to_picture(self._sample(crop, np.asarray(shown), words, seed)).resize(
            (side, side), Image.LANCZOS
        )
        soft = Image.fromarray((mask[window] * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(4))
        share = np.asarray(soft, np.float32)[..., None] / 255
        made = pixels.copy()
        made[window] += share * (np.asarray(painted, np.float32) / 255 - made[window])
        used = np.zeros(mask.shape, np.float32)
        used[window] = share[..., 0]
        return made, used

    def paste_difference(self, case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """What changed in a free edit, found by a threshold."""
        from tools.bench.edits import paste_difference

        edited = self.edit_freely(case, seed).astype(np.float64)
        picture, used = paste_difference(pad(case)[0].astype(np.float64), edited)
        return picture.astype(np.float32), used

    def keep_after(self, way: Any, masked: bool, case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Klein Keep behind another way, told what may change or not."""
        made = way(case, seed)
        edited = made[0] if isinstance(made, tuple) else made
        given, mask = pad(case)
        mask = self.image(_grow(mask, 4)) if masked else None
        kept = self.keep.keep(self.image(given), self.image(edited), mask, self.keep.KeepSettings())
        return kept.picture.numpy(), kept.mask.numpy()

    def list_ways(self, case: Case) -> dict[str, Callable[[Case, int], tuple[np.ndarray, np.ndarray]]]:
        """Name of a way to do an edit -> what does it."""
        if case.kind == "outpaint":
            ours = {
                f"{OUTPAINT}, {fill} first": partial(self.paint, fill=fill, strength=FILL_STRENGTH)
                for fill in ("edge colour", "mirrored", "noise")
            }
            ours[OUTPAINT] = self.paint
        else:
            ours = {WHOLE: partial(self.paint, area="whole picture")}
            if case.kind == "subject":
                ours[CROP] = partial(self.paint, area="crop", context=1.2)
        theirs = {
            "core's latent mask": self.mask_latent,
            "crop, resample, paste": self.paste_crop,
            "difference pasted": self.paste_difference,
        }
        if case.kind == "subject":
            theirs |= {
                f"{KEEP}, behind core's latent mask": partial(self.keep_after, self.mask_latent, False),
                f"{KEEP}, behind a free edit, with a mask": partial(self.keep_after, self.edit_freely, True),
            }
        return ours | theirs

    def edit_freely(self, case: Case, seed: int) -> np.ndarray:
        """The picture as reference, the instruction as prompt, no mask."""
        painter, torch = self.painter, self.painter.torch
        pixels, _ = pad(case)
        fields = {"image_1": [self.image(pixels)[None]]}
        references = painter.references.execute(fields, **painter.preparation).args[0]
        with torch.inference_mode():
            texts = painter.prompt.execute(painter.clip, case.edit, "", references, painter.vae).args[:2]
            request = painter.request(pixels.shape[1], pixels.shape[0], STEPS, GUIDANCE, seed)
            return painter.sample(painter.model, *texts, painter.vae, request).image[0].numpy()


def pad(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The picture with grey at its right, as Pad Image for Outpainting makes it, and its mask."""
    if not case.pad:
        return case.image.copy(), case.mask
    wide = np.pad(case.image, ((0, 0), (0, case.pad), (0, 0)), constant_values=0.5)
    mask = np.zeros(wide.shape[:2], bool)
    mask[:, case.picture.shape[1] - OVERLAP :] = True
    return wide.astype(np.float32), mask


def to_picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray((np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8))


def measure_seam(picture: np.ndarray, used: np.ndarray) -> float:
    """Gradient across the edge of a mask over the gradient beside it; 1 where there is no edge. Of a soft
    mask all of the transition is its edge, each place counted by how steep the mask is there."""
    from scipy.ndimage import distance_transform_edt

    weights = used.astype(np.float64)
    if weights.min() == weights.max():
        return 1.0
    around = np.zeros(weights.shape, bool)
    across, steepness, beside = [], [], []
    steps = {axis: np.diff(weights, axis=axis) for axis in (0, 1)}
    around[:-1] |= steps[0] != 0
    around[:, :-1] |= steps[1] != 0
    depth = distance_transform_edt(~around)
    for axis, step in steps.items():
        gradient = np.abs(np.diff(picture.astype(np.float64), axis=axis)).mean(-1)
        head = [slice(None)] * 2
        head[axis] = slice(0, -1)
        far = depth[tuple(head)]
        across.append(gradient[step != 0])
        steepness.append(np.abs(step[step != 0]))
        beside.append(gradient[(far >= BESIDE[0]) & (far <= BESIDE[1])])
    crossing = np.average(np.concatenate(across), weights=np.concatenate(steepness))
    return float((crossing + FLOOR) / (np.concatenate(beside).mean() + FLOOR))


def measure_paintings(count: int, folder: Path | None = None) -> list[Row]:
    """Every way on `count` cases of each kind, as rows."""
    return list_rows(score_paintings(count, folder))


def score_paintings(count: int, folder: Path | None = None) -> dict[tuple[str, str], Score]:
    studio, judge = Studio(), Judge()
    import comfy.utils

    comfy.utils.PROGRESS_BAR_ENABLED = False
    scores: dict[tuple[str, str], Score] = {}
    for number, case in enumerate(draw_cases(count)):
        row = [pad(case)[0]]
        for name, way in studio.list_ways(case).items():
            started = time.perf_counter()
            picture, used = way(case, 100 + number)
            seconds = time.perf_counter() - started
            row.append(picture)
            _note(scores.setdefault((case.kind, name), Score()), studio, judge, case, picture, used, seconds)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            to_picture(np.concatenate(row, axis=1)).save(folder / f"{case.kind}-{number // 3}.png")
    return scores


def _note(
    score: Score,
    studio: Studio,
    judge: Judge,
    case: Case,
    picture: np.ndarray,
    used: np.ndarray,
    seconds: float,
) -> None:
    seen = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    right = tuple(judge.subjects(seen, len(case.shown))) == case.shown
    score.right.append(right and judge.background(seen) == case.colour)
    given, mask = pad(case)
    rest = ~_grow(mask, 8)
    if rest.any():
        score.changed.append(int((picture != given)[rest].any(-1).sum()))
        off = studio.delta_e(studio.image(picture.clip(0, 1)), studio.image(given)).numpy()
        score.off.append(float(off[rest].mean()))
    score.seam.append(measure_seam(picture.clip(0, 1), used))
    score.seconds.append(seconds)


def _grow(mask: np.ndarray, by: int) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~mask) <= by if mask.any() else mask


def list_rows(scores: dict[tuple[str, str], Score]) -> list[Row]:
    """Columns one after another, each way by way; the goals are those of our own."""
    rows = []
    best = {
        kind: max(
            _share(score) for (other, name), score in scores.items() if other == kind and not _is_ours(name)
        )
        for kind, _ in scores
    }
    for (kind, name), score in sorted(
        scores.items(), key=lambda entry: (entry[0][0], not _is_ours(entry[0][1]))
    ):
        title, ours = f"{kind}: {name}", _is_ours(name)
        goal = f">= {best[kind]:g}" if name in (OUTPAINT, WHOLE) else None
        rows.append(Row(f"{title}: right subject", _share(score), "%", n=len(score.right), goal=goal))
        if score.changed:
            most = max(score.changed)
            goal = "== 0" if ours else None
            rows.append(
                Row(f"{title}: pixels changed outside, most", most, "", n=len(score.changed), goal=goal)
            )
            goal = "<= 1" if ours or name.startswith(KEEP) else None
            rows.append(row_of_samples(f"{title}: delta E outside", score.off, "", goal))
        goal = "<= 1.1" if ours else None
        rows.append(row_of_samples(f"{title}: seam", score.seam, "", goal))
        rows.append(Row(f"{title}: time", statistics.median(score.seconds), "s", n=len(score.seconds)))
    return rows


def _share(score: Score) -> float:
    return 100 * float(np.mean(score.right))


def _is_ours(name: str) -> bool:
    return name.startswith((OUTPAINT, CROP, WHOLE))
