"""Sampling crops of faces inside ComfyUI: one batch for those of equal size, and back into the picture.

Every face of a wave is cut out before any of them is blended, and draws its noise from a seed of its own, so
the result does not depend on how many faces share a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ..acceleration.patch import accelerate
from ..model.text_engine import encode_prompt
from ..references.engine import latents_of
from ..sampling import checks
from ..sampling.engine import Guide, check_model, context_width
from .colour import match_colours
from .composite import blend, cut_out, fit_back
from .conditioning import Conditioning, fits_one_batch, stack_rows, strip_picture, with_references
from .plan import Job, RefineRequest, group_by_size
from .prompts import DEFAULT_POSITIVE
from .report import Outcome

logger = logging.getLogger("kleinod.faces")

NOT_A_NUMBER = "kept as it was (the painting came out as not-a-number)"


@dataclass(frozen=True)
class Steering:
    """What the faces are painted with. positive, negative: conditionings of the whole picture, or None."""

    model: Any
    clip: Any
    vae: Any
    positive: Conditioning | None = None
    negative: Conditioning | None = None
    references: Any = None
    acceleration: Any = None


class Painter:
    """Paints the faces of one run: conditionings, model and progress bar are made once."""

    def __init__(self, steering: Steering, request: RefineRequest, faces: int) -> None:
        check_model(steering.model)
        checks.check_vae(steering.vae)
        self.request = request
        self.vae = steering.vae
        self.clip = steering.clip
        self.model = accelerate(steering.model, steering.acceleration)
        self.sampler = comfy.samplers.sampler_object("euler")
        self.notes: list[str] = []
        self.limit = request.batch_limit
        self.width = context_width(steering.model)
        settings = request.settings
        self.positive = self._shared(
            "positive", settings.positive_prompt, steering.positive, DEFAULT_POSITIVE
        )
        self.negative = self._shared("negative", settings.negative_prompt, steering.negative, "")
        self.identity = (
            latents_of(steering.vae, steering.references) if steering.references is not None else []
        )
        self._prompts: dict[str, Conditioning] = {}
        self._done = 0
        self._total = faces * request.steps
        self._show = latent_preview.prepare_callback(self.model, self._total)

    def paint_wave(self, pictures: Tensor, wave: Sequence[Job]) -> list[Outcome]:
        """Paint faces that do not touch into `pictures` `[B, H, W, C]`, in place."""
        crops = {job: cut_out(pictures[job.picture], job.crop) for job in wave}
        outcomes = []
        for group in group_by_size(wave):
            for batch in self._batches(group):
                painted, sigma = self._paint(batch, torch.stack([crops[job] for job in batch]))
                for job, pixels in zip(batch, painted, strict=True):
                    outcomes.append(self._bring_back(pictures[job.picture], job, pixels, sigma))
        return outcomes

    def _shared(self, field: str, text: str, given: Conditioning | None, default: str) -> Conditioning:
        """The conditioning of faces without a prompt of their own."""
        if not text.strip() and given is not None:
            checks.check_conditioning(field, given, self.width)
            stripped, dropped = strip_picture(given)
            if dropped:
                self.notes.append(
                    f"{field}: {' and '.join(dropped)} of the whole picture are not used on faces."
                )
            return stripped
        if not text.strip() and default:
            self.notes.append(f'{field}: no prompt was given, so the faces were asked for "{default}"')
        made = encode_prompt(self.clip, text.strip() or default, f"{field}_prompt")[0]
        checks.check_conditioning("clip", made, self.width)
        return made

    def _positive_of(self, job: Job) -> Conditioning:
        if job.prompt is None:
            return self.positive
        if job.prompt not in self._prompts:
            self._prompts[job.prompt] = encode_prompt(self.clip, job.prompt, "face_prompts")[0]
        return self._prompts[job.prompt]

    def _batches(self, group: Sequence[Job]) -> list[list[Job]]:
        """Jobs of one size whose prompts can share a batch, in their order."""
        batches: list[list[Job]] = []
        for job in group:
            mine = self._positive_of(job)
            home = next((b for b in batches if fits_one_batch(self._positive_of(b[0]), mine)), None)
            if home is None:
                batches.append([job])
            else:
                home.append(job)
        return batches

    def _paint(self, jobs: Sequence[Job], crops: Tensor) -> tuple[list[Tensor], float]:
        """Crops `[N, h, w, 3]` to painted crops and their start sigma, within the limit of a batch; where
        memory runs out, the limit is halved and the faces still missing are tried again."""
        painted: list[Tensor] = []
        sigma = 0.0
        while len(painted) < len(jobs):
            part = slice(len(painted), len(painted) + self.limit)
            done = self._done
            try:
                pixels, sigma = self._sample(jobs[part], crops[part])
            except Exception as error:
                if not comfy.model_management.is_oom(error) or len(jobs[part]) == 1:
                    raise
                self._done = done
                self.limit = max(1, len(jobs[part]) // 2)
                failed = len(jobs[part])
            else:
                painted += list(pixels)
                continue
            # Outside of the except clause, whose traceback would keep the batch's tensors alive.
            comfy.model_management.soft_empty_cache()
            self.notes.append(
                f"{failed} faces at once need more memory than there is; went on with {self.limit} at once."
            )
        return painted, sigma

    def _sample(self, jobs: Sequence[Job], crops: Tensor) -> tuple[Tensor, float]:
        """One batch: crops `[N, h, w, 3]` in 0..1 to painted ones of the same shape."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        latents = self.vae.encode(crops)
        checks.check_encoded(latents, crops.shape[2], crops.shape[1])
        noise = torch.cat(
            [comfy.sample.prepare_noise(latents[i : i + 1], job.seed) for i, job in enumerate(jobs)]
        )
        references = [latents, *self.identity]
        guide = Guide(
            self.model,
            with_references(stack_rows([self._positive_of(job) for job in jobs]), references),
            with_references(self.negative, references),
            self.request.guidance,
        )
        schedule = self.request.schedule((crops.shape[2], crops.shape[1]))
        samples = guide.make().sample(
            noise,
            latents,
            self.sampler,
            schedule.sigmas.clone(),
            denoise_mask=torch.stack([job.masks.denoise for job in jobs])[:, None],
            callback=self._on_step(len(jobs)),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=jobs[0].seed,
        )
        self._done += len(jobs) * self.request.steps
        comfy.model_management.throw_exception_if_processing_interrupted()
        pixels = self.vae.decode(samples.to(comfy.model_management.intermediate_device()))
        return pixels.reshape(-1, *pixels.shape[-3:]), schedule.start

    def _on_step(self, faces: int) -> Callable[[int, Tensor, Tensor, int], None]:
        done = self._done

        def on_step(step: int, x0: Tensor, x: Tensor, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            self._show(done + (step + 1) * faces - 1, x0, x, self._total)

        return on_step

    def _bring_back(self, picture: Tensor, job: Job, pixels: Tensor, sigma: float) -> Outcome:
        outcome = Outcome(job.number, job.picture, job.face, job.crop, job.seed, sigma)
        if not bool(torch.isfinite(pixels).all()):
            logger.warning("Face %d of picture %d %s.", job.number, job.picture + 1, NOT_A_NUMBER)
            return replace(outcome, fate=NOT_A_NUMBER)
        rows, columns = job.crop.region
        original = picture[rows, columns, :3].float()
        plain = fit_back(pixels[..., :3], job.crop).to(original.device)
        ring = job.masks.ring.to(original.device)
        matched = match_colours(plain, original, ring, self.request.settings.colour_match)
        blend(picture, matched, job.masks.composite, job.crop)
        shift = tuple(((matched - plain).mean(dim=(0, 1)) * 255).tolist())
        return replace(outcome, shift=shift)
