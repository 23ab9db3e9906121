"""Painting regions into pictures: wave by wave, as many at once as memory allows, and back into place.

Every region of a wave is cut out before any of them is blended, and draws its noise from a seed of its own,
so the result does not depend on how many share a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..base import seams
from ..base.sentences import Sentence, say
from .blend import blend, cut_out, fit_back
from .colour import match_colours
from .prompts import RegionPrompts
from .result import NOT_A_NUMBER, Painted
from .sampler import CropSampler
from .waves import AnyRegion, group_by_size, order_waves

comfy = seams.modules("comfy.model_management")

ExecutionBlocker = seams.find("comfy_execution.graph_utils:ExecutionBlocker")

logger = logging.getLogger("kleinod.regions")


@dataclass(frozen=True)
class PaintInputs:
    """What regions are painted with. positive, negative: conditionings of the whole picture, or None."""

    model: Any
    clip: Any
    vae: Any
    positive: Any = None
    negative: Any = None
    references: Any = None
    acceleration: Any = None


class Painter:
    """Paints regions into pictures. limit: how many at once, less where memory ran out. notes: in words."""

    def __init__(self, sampler: CropSampler, prompts: RegionPrompts) -> None:
        self.sampler, self.prompts = sampler, prompts
        self.limit = sampler.request.batch_limit
        self.notes: list[Sentence] = prompts.notes
        self.notes += sampler.notes

    def paint(self, pictures: Tensor, regions: Sequence[AnyRegion]) -> list[Painted[AnyRegion]]:
        """Paint regions into `pictures` `[B, H, W, C]`, in place; their fates, by picture and number."""
        results: list[Painted[AnyRegion]] = []
        for wave in order_waves(regions):
            results += self.paint_wave(pictures, wave)
        return sorted(results, key=lambda result: (result.region.picture, result.region.number))

    def paint_wave(self, pictures: Tensor, wave: Sequence[AnyRegion]) -> list[Painted[AnyRegion]]:
        """Paint regions that do not touch into `pictures` `[B, H, W, C]`, in place."""
        crops = {region: cut_out(pictures[region.picture], region.crop) for region in wave}
        results = []
        for group in group_by_size(wave):
            for batch in self.prompts.split_batches(group):
                painted, sigma = self._paint(batch, torch.stack([crops[region] for region in batch]))
                for region, pixels in zip(batch, painted, strict=True):
                    results.append(self._bring_back(pictures[region.picture], region, pixels, sigma))
        return results

    def _paint(self, regions: Sequence[AnyRegion], crops: Tensor) -> tuple[list[Tensor], float]:
        """Crops `[N, h, w, 3]` to painted crops and their start sigma, within the limit of a batch; where
        memory runs out, the limit is halved and the regions still missing are tried again."""
        painted: list[Tensor] = []
        sigma = 0.0
        while len(painted) < len(regions):
            part = slice(len(painted), len(painted) + self.limit)
            try:
                pixels, sigma = self.sampler.paint(regions[part], crops[part], self.prompts)
            except Exception as error:
                if not comfy.model_management.is_oom(error) or len(regions[part]) == 1:
                    raise
                self.limit = max(1, len(regions[part]) // 2)
                failed = len(regions[part])
            else:
                painted += list(pixels)
                continue
            # Outside of the except clause, whose traceback would keep the batch's tensors alive.
            comfy.model_management.soft_empty_cache()
            self.notes.append(
                say(
                    "%1 %2 at once need more memory than there is; went on with %3 at once.",
                    failed,
                    self.prompts.noun,
                    self.limit,
                )
            )
        return painted, sigma

    def _bring_back(
        self, picture: Tensor, region: AnyRegion, pixels: Tensor, sigma: float
    ) -> Painted[AnyRegion]:
        result = Painted(region, sigma)
        if not bool(torch.isfinite(pixels).all()):
            logger.warning("Region %d of picture %d %s.", region.number, region.picture + 1, NOT_A_NUMBER)
            return replace(result, fate=NOT_A_NUMBER)
        rows, columns = region.crop.region
        original = picture[rows, columns, :3].float()
        plain = fit_back(pixels[..., :3], region.crop).to(original.device)
        ring = region.masks.ring.to(original.device)
        matched = match_colours(plain, original, ring, self.sampler.request.colour_match)
        blend(picture, matched, region.masks.composite, region.crop)
        shift = tuple(((matched - plain).mean(dim=(0, 1)) * 255).tolist())
        return replace(result, shift=shift)


def send_crops(crops: Sequence[Tensor]) -> list[Any]:
    """Crops as an output list. An empty one would run the nodes behind it without an input, so that they
    fail; blocked, they rest."""
    return list(crops) or [ExecutionBlocker(None)]
