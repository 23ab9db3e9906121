"""Keys and values of reference images, kept per condition and block, so that most steps need no reference
tokens.

One reference image is more than half of a step's work. Two ways to spare it:
refresh   every n-th computed step runs with the references and stores their keys and values; in between text
and picture attend to the stored ones. On models trained with full attention this changes the picture a
little.
exact     references see only themselves and are modulated at sigma 0, as FLUX.2 [klein] 9B-KV was trained
(its reference implementation: diffusers transformer_flux2.py). Their keys and values then depend on neither
step, prompt nor noise, so once is enough and nothing is approximated.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...base.errors import InputError
from ...base.sentences import Sentence, say
from ...base.values import Acceleration
from .. import presets
from ..clock import SURE_FROM
from .policy import MIN_STEPS, Call, ModelFacts, Policy, RunFacts, Step, StepResult

BlockName = tuple[str, int]
REFRESH = "refresh"


class ReferenceReuse(Policy):
    """Collects on full steps and serves on the others; everything is keyed by condition (uuid) and block.

    Only a complete set, a pair of every block of the network, is served.
    """

    title = "references"
    needs_blocks = True
    inside_network = True
    replaces_attention = True

    def __init__(self, settings: Acceleration, run: RunFacts) -> None:
        super().__init__(settings, run)
        self._interval = settings.reference_interval
        self._blocks = run.model.blocks
        self._holds = True
        self._stored: dict[Any, dict[BlockName, tuple[Tensor, Tensor]]] = {}
        self._shapes: dict[Any, tuple[Any, ...]] = {}
        self._mask: Tensor | None = None
        self._since_full = 0
        self._full = 0
        self._served = 0
        self._collect = True
        # Of this step: conditions run, blocks stored afresh, calls with references, tokens run and due.
        self._seen: list[Any] = []
        self._fresh: dict[Any, set[BlockName]] = {}
        self._calls: list[bool] = []
        self._ran = 0
        self._due = 0
        # Of this call.
        self._uuids: list[Any] = []
        self._tokens = 0
        self._serving = False
        self._storing = False

    @classmethod
    def is_wanted(cls, settings: Acceleration) -> bool:
        return settings.reference_cache != "off"

    @classmethod
    def min_steps(cls, settings: Acceleration) -> int:
        # Exact reuse approximates nothing: it serves distilled models of 4 steps as well.
        return MIN_STEPS if settings.reference_cache == REFRESH else 0

    @classmethod
    def check(cls, settings: Acceleration, model: ModelFacts, steps: int | None = None) -> None:
        if model.flux_kv_cache:
            raise InputError(
                say(
                    "Flux KV Cache and reference_cache both keep the keys of reference images. "
                    "Remove Flux KV Cache or set reference_cache to off."
                )
            )

    @classmethod
    def describe(cls, settings: Acceleration, steps: tuple[int, ...]) -> list[tuple[str, str]]:
        if settings.reference_cache != REFRESH:
            return [("references", "computed once (exact only for 9B-KV weights)")]
        every = presets.ordinal(settings.reference_interval)
        words = f"experimental: computed on every {every} computed step, remembered in between"
        return [("references", words)]

    @property
    def is_exact(self) -> bool:
        return self.settings.reference_cache != REFRESH

    def hold_nothing(self) -> None:
        """Keep nothing from here on. In exact mode references still see only themselves: the same picture."""
        self._holds = False
        self.forget()

    def begin_step(self, step: Step) -> bool:
        early = step.index is None or step.index < SURE_FROM
        self._collect = not self.is_exact and (early or self._since_full + 1 >= self._interval)
        self._fresh = {}
        self._calls = []
        self._ran = self._due = 0
        self.redo()
        return False

    def redo(self) -> None:
        self._seen = []

    def begin_call(self, call: Call) -> None:
        uuids, shapes = call.keys, call.references
        if self.is_exact and shapes:
            call.inputs["ref_latents_method"] = "index_timestep_zero"
        repeated = not uuids or bool(call.batch % len(uuids)) or len(set(uuids)) < len(uuids)
        repeated = repeated or any(uuid in self._seen for uuid in uuids)
        self._seen += uuids
        self._uuids = list(uuids)
        self._tokens = call.height * call.width
        self._mask = None
        if repeated and not self.is_exact:
            # Tiles, windows, skip-layer guidance: a condition runs several times a step, each time otherwise.
            self.forget()
        usable = bool(shapes) and not repeated and not call.masked and self._holds
        ready = all(
            self._shapes.get(uuid) == shapes and len(self._stored[uuid]) == self._blocks for uuid in uuids
        )
        self._serving = usable and ready and not self._collect
        self._storing = usable and not self._serving
        if self._storing:
            for uuid in uuids:
                if self._shapes.get(uuid) != shapes:
                    self._stored[uuid] = {}
                    self._shapes[uuid] = shapes
                self._fresh[uuid] = set()
        if shapes:
            self._calls.append(self._serving)

    def end_call(self) -> None:
        self._uuids = []
        self._mask = None
        self._serving = self._storing = False

    def enter(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Drop the reference tokens, which stand last, from a call that is served from the
        store.
        """
        references = sum(inputs["transformer_options"].get("reference_image_num_tokens", []))
        image, text = inputs["img"], inputs["txt"]
        self._due += image.shape[0] * (image.shape[1] + text.shape[1])
        if self._serving and image.shape[1] == self._tokens + references:
            inputs["img"] = image = image[:, : self._tokens]
        elif self._serving:
            # Another patch changed the sequence: what stands last is not known to be the references.
            self._serving = False
            self._calls[-1] = False
        self._ran += image.shape[0] * (image.shape[1] + text.shape[1])
        return inputs

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, extra: dict[str, Any]
    ) -> dict[str, Tensor]:
        """attn1 patch: q, k, v `[B, heads, tokens, 128]`, before rotation. Store or supply the references'
        part.
        """
        references = sum(extra.get("reference_image_num_tokens", []))
        if not references:
            return {}
        block = (extra["block_type"], extra["block_index"])
        if self._serving:
            pairs = [self._stored[uuid][block] for uuid in self._uuids]
            keys, values = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
            return {"q": q, "k": torch.cat((k, keys), dim=2), "v": torch.cat((v, values), dim=2)}
        if self._storing:
            rows = q.shape[0] // len(self._uuids)
            for i, uuid in enumerate(self._uuids):
                part = slice(i * rows, (i + 1) * rows)
                self._stored[uuid][block] = (
                    k[part, :, -references:].clone(),
                    v[part, :, -references:].clone(),
                )
                self._fresh[uuid].add(block)
        return {"attn_mask": self._hide_picture(q, references, mask)} if self.is_exact else {}

    def _hide_picture(self, q: Tensor, references: int, mask: Tensor | None) -> Tensor:
        """A mask `[tokens, tokens]` in which references see only references; all blocks share one.

        Of numbers to be added: most of ComfyUI's attentions (sub-quadratic, split, xformers) would add a mask
        of truth values as 0 and 1.
        """
        length, never = q.shape[2], torch.finfo(q.dtype).min
        if self._mask is None or self._mask.shape[0] != length:
            self._mask = torch.zeros(length, length, dtype=q.dtype, device=q.device)
            self._mask[-references:, :-references] = never
        if mask is None:
            return self._mask
        if mask.dtype == torch.bool:
            return self._mask.masked_fill(~mask, never)
        return mask.to(q.dtype).masked_fill(self._mask < 0, never)

    def end_step(self, x: Tensor, denoised: Tensor) -> StepResult:
        if self._calls:
            self._served += all(self._calls)
            self._full += not all(self._calls)
            # A block cache may have stopped a full step early: then the next one has to collect the rest.
            whole = bool(self._fresh) and all(len(done) == self._blocks for done in self._fresh.values())
            self._since_full = 0 if whole else self._since_full + 1
        return StepResult(denoised, work=self._ran / self._due if self._due else 1.0)

    def notes(self) -> list[Sentence]:
        if not self._full:
            return [say("no reference image was used")]
        return [say("references computed at %1 of %2 computed steps", self._full, self._full + self._served)]

    def forget(self) -> None:
        self._stored = {}
        self._shapes = {}
        self._since_full = 0
        self._mask = None
