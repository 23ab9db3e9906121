"""What other nodes put on a MODEL that FLUX.2 cannot use, read from its model options.

Nodes for other architectures patch places that FLUX.2 [klein] does not have: the picture is bit for bit that
without the node, and nothing says so. Others are called in a way they do not expect, and die deep inside
ComfyUI. Both are known without their names: the network's own code says which patches it asks for. And
ComfyUI's EasyCache adds to the tensor it is given, which in fp32 is the one the result is then computed from:
it gets a copy.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..acceleration.attached import AROUND_GUIDANCE, flatten, name_all, places_of
from ..base import seams
from ..base.errors import InputError
from ..base.sentences import Sentence, say

WrappersMP = seams.find("comfy.patcher_extension:WrappersMP")

KEY = "kleinod.sampling.lent"
# Patches that the network calls with more than the nodes for UNets take.
_ATTENTION = "attn1_patch"
# At sigma 0.5, of x 1 and the network's answer 3: the time is sigma itself, and the answer a velocity.
_FLOW = torch.tensor([0.5, 1 - 0.5 * 3])


class ForeignPatches:
    """What stands on one MODEL (ModelPatcher) at the start of a run. The network's code, which tells what can
    act, is read once, and only where there is something to look for.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._options = model.model_options.get("transformer_options", {})

    def check(self) -> None:
        """Raises InputError for what would die deep inside a run: a patch of attention that FLUX.2 would call
        in vain, a function around guidance that reads what such a patch never notes."""
        patches = self._options.get("patches", {})
        odd = [function for function in flatten(patches.get(_ATTENTION)) if not _takes_flux(function)]
        if odd:
            raise InputError(
                say(
                    "model carries %1, which is made for Stable Diffusion's attention "
                    "and stops in FLUX.2 [klein]'s: take that node off.",
                    " + ".join(name_all(odd)),
                )
            )
        waiting = self._find_waiting()
        if waiting:
            raise InputError(
                say(
                    "model carries %1, which reads attention that FLUX.2 [klein] never shows it: "
                    "take that node off.",
                    " + ".join(name_all(waiting)),
                )
            )

    def warn(self) -> list[Sentence]:
        """A sentence for what has no effect, or spoils the picture."""
        asks = {function: places_of(function) for function in self._around_guidance}
        idle = [
            *self._idle,
            *(function for function, places in asks.items() if places and not places & self._asked),
        ]
        said = []
        if idle:
            names = " + ".join(name_all(idle))
            said.append(
                say("%1 on the model has no effect: FLUX.2 [klein] has none of the places it changes.", names)
            )
        return [*said, *_judge_sampling(self._model)]

    @cached_property
    def _asked(self) -> set[str]:
        """The places that the network's code names."""
        return set(_list_constants(self._model.model.diffusion_model))

    @cached_property
    def _idle(self) -> list[Any]:
        """Patches on places that the network does not have."""
        groups = {**self._options.get("patches", {}), **self._options.get("patches_replace", {})}
        return [
            function for key, group in groups.items() if key not in self._asked for function in flatten(group)
        ]

    @property
    def _around_guidance(self) -> list[Any]:
        options = self._model.model_options
        return [function for name in AROUND_GUIDANCE for function in flatten(options.get(name))]

    def _find_waiting(self) -> list[Any]:
        """Functions around guidance that share a variable, still None, with a patch that is never called."""
        noted = {id(cell) for function in self._idle for cell in _cells_of(function) if _is_none(cell)}
        around = self._around_guidance if noted else []
        return [function for function in around if noted & {id(cell) for cell in _cells_of(function)}]


def _cells_of(function: Any) -> tuple[types.CellType, ...]:
    """The variables that it shares with what made it."""
    return getattr(function, "__closure__", None) or ()


def _is_none(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is None
    except ValueError:  # not yet filled
        return False


def _judge_sampling(model: Any) -> list[Sentence]:
    """What a node such as ModelSamplingSD3 has made of the model's times and of what it predicts."""
    if "model_sampling" not in model.object_patches:
        return []
    sampling = model.get_model_object("model_sampling")
    if not torch.allclose(_answer(sampling), _FLOW):
        name = type(sampling).__qualname__.partition(".")[0]
        return [
            say(
                "A node on the model (of ModelSampling) has it sampled as another kind of model (%1), which "
                "spoils the picture: take it off.",
                name,
            )
        ]
    own = model.model.model_config.sampling_settings.get("shift")
    if getattr(sampling, "shift", own) != own:
        return [
            say("The shift of a ModelSampling node is not used: the scheduler and mu of Klein Sampler count.")
        ]
    return []


def _answer(sampling: Any) -> Tensor:
    """The time that the network is told half-way, and what is made of its answer, as in `_FLOW`."""
    half, ones = torch.full((1,), 0.5), torch.ones(1, 1, 1, 1)
    denoised = sampling.calculate_denoised(half, 3 * ones, ones)
    return torch.cat([sampling.timestep(half).reshape(-1), denoised.reshape(-1)]).float()


def lend_to_easycache(model: Any) -> Any:
    """A MODEL whose EasyCache gets a copy of x; the very model where there is none."""
    if model.model_options.get("transformer_options", {}).get("easycache") is None:
        return model
    lent = model.clone()
    kind = WrappersMP.DIFFUSION_MODEL
    lent.wrappers[kind] = {KEY: [_lend], **lent.wrappers.get(kind, {})}  # before that of EasyCache
    return lent


def _lend(executor: Any, x: Tensor, *rest: Any, **named: Any) -> Any:
    return executor(x.clone(), *rest, **named)


def _takes_flux(function: Any) -> bool:
    """Whether a patch can be called as FLUX.2's blocks do: q, k, v; pe, attn_mask, extra_options by name."""
    try:
        inspect.signature(function).bind(None, None, None, pe=None, attn_mask=None, extra_options={})
    except TypeError:
        return False
    except ValueError:  # a built-in one tells nothing
        return True
    return True


def _list_constants(network: Any) -> Iterator[str]:
    """Every string in the code of the modules that a network and its parts are written in."""
    names = {type(part).__module__ for part in network.modules()}
    modules = [sys.modules[name] for name in names if name in sys.modules and not name.startswith("torch.")]
    for module in modules:
        for thing in getattr(module, "__dict__", {}).values():  # what stands for a missing one has none
            functions = vars(thing).values() if isinstance(thing, type) else (thing,)
            for function in functions:
                if isinstance(function, types.FunctionType):
                    yield from _strings(function.__code__)


def _strings(code: types.CodeType) -> Iterator[str]:
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, types.CodeType):
            yield from _strings(constant)
