"""LoRAs that bypass the weights: their change is added to what a layer gives, for some or all steps.

While the network is called, the layers concerned carry a forward hook that adds the change to their output;
the hooks go when the call ends, however it ends, so no other model that shares the layers ever meets them.
What was moved to the device for a run is dropped at its start and end. A layer's weight is never touched: it
may be bf16, fp8, GGUF or anything else that is called like a linear layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..base import graph_capture
from ..base.errors import ArtistError
from ..base.sentences import say
from ..base.transformer_options import MODEL_EDGES
from ..base.values import BOTH_STAGES, StageBoundary
from .parts import Adapt, Part, SidePath
from .stages import edge_of, is_active

FROZEN = say(
    "LoRA rows with a stage (high, low) cannot act here: this ComfyUI runs the model's blocks as recorded "
    "CUDA graphs, which would keep one stage for the whole run. Set their stage to both, or start ComfyUI "
    "with --disable-cuda-graphs."
)

# Inputs of the unit matrix that are sent through a layer at once to read its weight.
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class StageGate:
    """When a group of parts acts."""

    stage: str = BOTH_STAGES
    boundary: StageBoundary = StageBoundary()

    def is_open(self, sigma: float | None, sigmas: Sequence[float]) -> bool:
        return sigma is None or is_active(self.stage, self.boundary, sigma, sigmas)


@dataclass(frozen=True)
class Slot:
    """Where a part acts: rows `start` to `start + length` of a layer's output; length 0: all."""

    module: str
    start: int = 0
    length: int = 0


@dataclass
class BypassLoras:
    """The wrapper of one stack: `sample` around a run, `apply` around each call of the network.

    groups: gate -> slot -> parts. adapt: see `parts.py`.
    """

    groups: Mapping[StageGate, Mapping[Slot, Sequence[Part]]]
    adapt: Adapt
    _paths: dict[tuple[Any, ...], list[SidePath]] = field(default_factory=dict)
    _open: tuple[StageGate, ...] = ()

    @property
    def boundaries(self) -> list[StageBoundary]:
        """Where the model changes during a run."""
        return list(dict.fromkeys(gate.boundary for gate in self.groups if gate.stage != BOTH_STAGES))

    @property
    def whole_runs(self) -> Mapping[Slot, Sequence[Part]]:
        """What acts on every step: in the weights it would be the same."""
        return self.groups.get(StageGate(), {})

    def staged(self, scales: Mapping[Slot, float]) -> BypassLoras | None:
        """What acts on some steps only, at `scales` of its strength (1 where none is named); None for "
        "nothing."""
        groups = {
            gate: {
                slot: [part._replace(weight=part.weight * scales.get(slot, 1.0)) for part in parts]
                for slot, parts in slots.items()
            }
            for gate, slots in self.groups.items()
            if gate != StageGate()
        }
        return BypassLoras(groups, self.adapt) if groups else None

    def sample(
        self,
        executor: Any,
        noise: Tensor,
        latent: Tensor,
        sampler: Any,
        sigmas: Tensor,
        *rest: Any,
        **named: Any,
    ) -> Any:
        """OUTER_SAMPLE: drop what an earlier run left, and tell caches where the model will change."""
        self._forget()
        options = executor.class_obj.model_options.setdefault("transformer_options", {})
        edges = [edge_of(boundary, sigmas.tolist()) for boundary in self.boundaries]
        if edges:
            options[MODEL_EDGES] = (*options.get(MODEL_EDGES, ()), *edges)
        try:
            return executor(noise, latent, sampler, sigmas, *rest, **named)
        finally:
            self._forget()

    def _forget(self) -> None:
        self._open = ()
        self._paths.clear()

    def apply(self, executor: Any, x: Tensor, t: Tensor, *args: Any, **options: Any) -> Any:
        """APPLY_MODEL: `t` are the sigmas of the batch, the same for all of a step."""
        transformer_options = options.get("transformer_options") or (args[3] if len(args) > 3 else None) or {}
        # A number from the device is waited for only where a stage depends on it.
        sigma = float(t.flatten()[0]) if self.boundaries else None
        schedule = transformer_options.get("sample_sigmas")
        sigmas = [] if sigma is None or schedule is None else schedule.tolist()
        gates = tuple(gate for gate in self.groups if gate.is_open(sigma, sigmas))
        if gates != self._open:
            self._open = gates
            self._paths.clear()  # a stage that is over does not come back
        compiled = "torch.compile" in transformer_options.get("wrappers", {}).get("apply_model", {})
        with self._hooked(executor.class_obj.diffusion_model, gates), _uncompiled(compiled and bool(gates)):
            return executor(x, t, *args, **options)

    @contextmanager
    def _hooked(self, network: nn.Module, gates: tuple[StageGate, ...]) -> Iterator[None]:
        handles = []
        try:
            for module in dict.fromkeys(slot.module for gate in gates for slot in self.groups[gate]):
                hook = _Hook(self, module, gates)
                handles.append(network.get_submodule(module).register_forward_hook(hook))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def paths_for(
        self, layer: nn.Module, module: str, gates: tuple[StageGate, ...], x: Tensor, out: Tensor
    ) -> list[SidePath]:
        """The side paths of a layer, made when it is first called in a run."""
        key = (id(layer), gates, out.device, out.dtype)
        if key not in self._paths:
            slots: dict[Slot, list[Part]] = {}
            for gate in gates:
                for slot, parts in self.groups[gate].items():
                    if slot.module == module:
                        slots.setdefault(slot, []).extend(parts)
            self._paths[key] = [
                SidePath(
                    parts,
                    (slot.length or out.shape[-1], x.shape[-1]),
                    slot.start,
                    slot.length,
                    out.device,
                    out.dtype,
                    lambda: read_weight(layer, x),
                    self.adapt,
                )
                for slot, parts in slots.items()
            ]
        return self._paths[key]


@contextmanager
def _uncompiled(wanted: bool) -> Iterator[None]:
    """Run what torch.compile made as plain PyTorch: a compiled graph does not see hooks that come and go."""
    if not wanted:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


class _Hook:
    def __init__(self, loras: BypassLoras, module: str, gates: tuple[StageGate, ...]) -> None:
        self.loras, self.module, self.gates = loras, module, gates

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        if graph_capture.is_capturing() and self.loras.boundaries:
            raise ArtistError(FROZEN)
        x = args[0]
        for path in self.loras.paths_for(layer, self.module, self.gates, x, out):
            path.add_to(x, out)
        return out


def read_weight(layer: nn.Module, like: Tensor) -> Tensor:
    """The weight `[rows, columns]` that a linear layer acts by, in float32, whatever it is stored as.

    It is asked for by calling the layer with the unit matrix, which every kind of stored weight answers.
    """
    columns = like.shape[-1]
    forward = layer.forward  # without the hooks
    offset = forward(torch.zeros(1, columns, device=like.device, dtype=like.dtype)).float()
    answers = []
    for first in range(0, columns, _ROWS_AT_ONCE):
        count = min(_ROWS_AT_ONCE, columns - first)
        unit = torch.zeros(count, columns, device=like.device, dtype=like.dtype)
        unit[torch.arange(count), first + torch.arange(count)] = 1
        answers.append(forward(unit).float() - offset)
    return torch.cat(answers).t().contiguous()
