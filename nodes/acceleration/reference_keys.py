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

from ..wires import Acceleration

BlockName = tuple[str, int]


class ReferenceKeys:
    """Collects on full steps and serves on the others; everything is keyed by condition (uuid) and block."""

    def __init__(self, interval: int, exact: bool) -> None:
        self.interval = interval
        self.exact = exact
        self._stored: dict[Any, dict[BlockName, tuple[Tensor, Tensor]]] = {}
        self._lengths: dict[Any, tuple[int, tuple[int, ...]]] = {}
        self._collect = True
        self._allowed = False
        self._since_full = 0
        self._uuids: list[Any] = []
        self._serving = False
        self._step_serves: bool | None = None
        self._share = 1.0
        self._full = 0
        self._served = 0

    @classmethod
    def wanted(cls, acceleration: Acceleration) -> ReferenceKeys | None:
        """None where the settings leave references alone."""
        if acceleration.reference_cache == "off":
            return None
        exact = acceleration.reference_cache != "refresh"
        return cls(acceleration.reference_interval, exact)

    def begin_step(self, index: int | None, sigma: float) -> None:
        self._allowed = index is not None
        self._collect = not self._allowed or (not self.exact and self._since_full + 1 >= self.interval)
        self._step_serves = None
        self._share = 1.0

    def begin_call(self, uuids: list[Any], reference_shape: tuple[int, ...]) -> None:
        """Open a call of the network. reference_shape: sizes of the call's references, empty without any."""
        self._uuids = list(uuids)
        signature = (len(reference_shape), reference_shape)
        known = all(self._lengths.get(uuid) == signature and uuid in self._stored for uuid in self._uuids)
        self._serving = (
            bool(reference_shape) and not self._collect and known and len(set(uuids)) == len(uuids)
        )
        if reference_shape and not self._serving:
            for uuid in self._uuids:
                self._stored[uuid] = {}
                self._lengths[uuid] = signature
        if reference_shape:
            served_before = self._step_serves is not False
            self._step_serves = served_before and self._serving

    @property
    def serving(self) -> bool:
        return self._serving

    def cut_references(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """post_input patch: drop the reference tokens, which stand last, from a call that is served from the
        store.
        """
        references = sum(inputs["transformer_options"].get("reference_image_num_tokens", []))
        if self._serving and references:
            image = inputs["img"]
            self._share = (image.shape[1] - references + inputs["txt"].shape[1]) / (
                image.shape[1] + inputs["txt"].shape[1]
            )
            inputs["img"] = image[:, :-references]
        return inputs

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, extra: dict[str, Any]
    ) -> dict[str, Tensor]:
        """attn1 patch: q, k, v `[B, heads, tokens, 128]`, before rotation. Store or supply the references'
        part.
        """
        references = sum(extra.get("reference_image_num_tokens", []))
        if not references or not self._uuids:
            return {}
        block = (extra["block_type"], extra["block_index"])
        if self._serving:
            pairs = [self._stored[uuid][block] for uuid in self._uuids]
            keys, values = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
            return {"q": q, "k": torch.cat((k, keys), dim=2), "v": torch.cat((v, values), dim=2)}
        rows = q.shape[0] // len(self._uuids)
        for i, uuid in enumerate(self._uuids):
            part = slice(i * rows, (i + 1) * rows)
            self._stored[uuid][block] = (k[part, :, -references:].clone(), v[part, :, -references:].clone())
        return {"attn_mask": self._hide_picture(q, references, mask)} if self.exact else {}

    @staticmethod
    def _hide_picture(q: Tensor, references: int, mask: Tensor | None) -> Tensor:
        """A mask `[tokens, tokens]` in which references see only references."""
        length = q.shape[2]
        visible = torch.ones(length, length, dtype=torch.bool, device=q.device)
        visible[-references:, :-references] = False
        if mask is None:
            return visible
        if mask.dtype == torch.bool:
            return mask & visible
        return mask.masked_fill(~visible, torch.finfo(mask.dtype).min)

    def end_step(self) -> float:
        """Share of the tokens that ran in this step."""
        if self._step_serves is None:
            return 1.0
        if self._step_serves:
            self._since_full += 1
            self._served += 1
            return self._share
        self._since_full = 0
        self._full += 1
        return 1.0

    def notes(self) -> list[str]:
        if not self._full:
            return ["no reference image was used"]
        return [f"references computed at {self._full} of {self._full + self._served} computed steps"]

    def forget(self) -> None:
        self._stored = {}
        self._lengths = {}
        self._since_full = 0
        self._serving = False
