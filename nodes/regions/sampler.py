"""Sampling one batch of crops inside ComfyUI: pixels in, painted pixels of the same size out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..acceleration.patch import accelerate
from ..base import seams
from ..references.control import control_references
from ..references.engine import latents_of
from ..sampling import checks
from ..sampling.engine import Guide, check_model
from ..sampling.patches import ForeignPatches, lend_to_easycache
from ..sampling.progress import RunProgress
from .blend import hide_masked
from .conditioning import stack_rows, with_references
from .prompts import RegionPrompts
from .request import NO_CROP, SHOWN, PaintRequest
from .waves import Region

comfy = seams.modules("comfy.model_management", "comfy.sample", "comfy.samplers", "comfy.utils")


class CropSampler:
    """Paints batches of crops with one model: the accelerated model, the references and the progress bar are
    made once.

    size: (width, height) of the whole picture. references: a References value, whose pictures follow the crop
    itself as image 2, image 3 and so on. count: regions of the whole run, for the progress bar. notes: in
    words, what on the model has no effect or spoils the picture.
    """

    def __init__(
        self, model: Any, vae: Any, request: PaintRequest, count: int, size: tuple[int, int],
        references: Any = None, acceleration: Any = None,
    ) -> None:  # fmt: skip
        check_model(model)
        patches = ForeignPatches(model)
        patches.check()
        checks.check_vae(vae)
        self.request, self.vae = request, vae
        self.notes = patches.warn()
        self.model = accelerate(lend_to_easycache(model), acceleration)
        self.sampler = comfy.samplers.sampler_object("euler")
        self.size, self.references = size, references
        self.further = latents_of(vae, references) if references is not None else []
        self._done = 0
        self._total = count * request.steps_run
        self._progress = RunProgress(self.model, self._total)

    def paint(self, regions: Sequence[Region], crops: Tensor, prompts: RegionPrompts) -> tuple[Tensor, float]:
        """Crops `[N, h, w, 3]` in 0..1 of N regions to painted ones of the same shape, and their start sigma.

        The progress bar stays where it was when the batch fails.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        latents = self.vae.encode(crops)
        checks.check_encoded(latents, crops.shape[2], crops.shape[1])
        noise = torch.cat(
            [comfy.sample.prepare_noise(latents[i : i + 1], region.seed) for i, region in enumerate(regions)]
        )
        shown = self._show_crops(regions, crops, latents)
        references = [*shown, *self.further]
        control = self._weigh(regions, len(shown))
        positive = stack_rows([prompts.positive_of(region) for region in regions])
        guide = Guide(
            self.model,
            with_references(positive, references, control) if references else positive,
            with_references(prompts.negative, references, control) if references else prompts.negative,
            self.request.guidance,
        )
        schedule = self.request.schedule((crops.shape[2], crops.shape[1]))
        samples = guide.make().sample(
            noise,
            latents,
            self.sampler,
            schedule.sigmas.clone(),
            denoise_mask=torch.stack([region.masks.denoise for region in regions])[:, None],
            callback=self._on_step(len(regions)),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=regions[0].seed,
        )
        comfy.model_management.throw_exception_if_processing_interrupted()
        pixels = self.vae.decode(samples.to(comfy.model_management.intermediate_device()))
        self._done += len(regions) * self.request.steps_run
        return pixels.reshape(-1, *pixels.shape[-3:]), schedule.start

    def _show_crops(self, regions: Sequence[Region], crops: Tensor, latents: Tensor) -> list[Tensor]:
        """The crops as first reference, `[N, 128, h, w]`; none where the request wants none."""
        if self.request.crop_reference == NO_CROP:
            return []
        if self.request.crop_reference == SHOWN:
            return [latents]
        hidden = [
            hide_masked(crop, region.masks.composite) for crop, region in zip(crops, regions, strict=True)
        ]
        return [self.vae.encode(torch.stack(hidden))]

    def _weigh(self, regions: Sequence[Region], before: int) -> Any:
        """What makes the further references count as they should, each crop with its part of their places."""
        if self.references is None:
            return None
        width, height = self.size
        boxes = [
            (left / width, top / height, right / width, bottom / height)
            for left, top, right, bottom in (region.crop.box for region in regions)
        ]
        return control_references(self.references, before, boxes)

    def _on_step(self, regions: int) -> Callable[[int, Tensor, Tensor, int], None]:
        done = self._done

        def on_step(step: int, x0: Tensor, x: Tensor, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            self._progress.show_step(done + (step + 1) * regions, x0)

        return on_step
