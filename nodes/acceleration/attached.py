"""What other nodes put on a MODEL that does not bear skipped work, read from its model options.

Two kinds. Patches that compare prompt and negative prompt inside one call (core's Normalized Attention
Guidance) need both branches in every step. Functions around guidance that keep something from step to step
(core's Adaptive Projected Guidance with momentum) need every step. Nobody announces either, so their code is
read: a patch that looks for `cond_or_uncond`, a function that writes variables which outlive its call.
"""

from __future__ import annotations

import dis
import functools
import inspect
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..base.values import Acceleration

_OWN = __name__.rpartition(".nodes.")[0] or __name__.partition(".")[0]
# Called once a step where guidance is put together; a step that is forecast calls none of them.
_AROUND_GUIDANCE = ("sampler_pre_cfg_function", "sampler_cfg_function", "sampler_post_cfg_function")


@dataclass(frozen=True)
class Attached:
    """Names of what was found. pairs: needs both branches of a step in one call. state: needs every step."""

    pairs: tuple[str, ...] = ()
    state: tuple[str, ...] = ()


def find_attached(model_options: Mapping[str, Any]) -> Attached:
    """What of a MODEL's options does not bear skipped work; our own functions are none of it."""
    transformer = model_options.get("transformer_options", {})
    groups = [*transformer.get("patches", {}).values(), *transformer.get("patches_replace", {}).values()]
    patches = [function for group in groups for function in _flatten(group)]
    around = [function for name in _AROUND_GUIDANCE for function in _flatten(model_options.get(name))]
    return Attached(
        _name_all(function for function in patches if _mentions(function, "cond_or_uncond")),
        _name_all(function for function in around if _keeps_state(function)),
    )


def adapt(acceleration: Acceleration, attached: Attached) -> tuple[Acceleration, list[str]]:
    """Settings that bear what is attached, and in words what was given up for it."""
    if attached.state:
        names = " and ".join(attached.state)
        off = Acceleration(acceleration="none")
        return off, [
            f"{names} keeps something from step to step, which skipped steps would spoil: every step was "
            "computed. Set its momentum to 0 or take it off to accelerate"
        ]
    if attached.pairs and (acceleration.guidance_interval > 1 or acceleration.guidance_end_percentage < 100):
        names = " and ".join(attached.pairs)
        kept = replace(acceleration, guidance_interval=1, guidance_end_percentage=100)
        return kept, [
            f"{names} compares prompt and negative prompt in every step, so both ran in every computed one: "
            "guidance_interval and guidance_end_percentage were not used"
        ]
    return acceleration, []


def _flatten(group: Any) -> list[Any]:
    if isinstance(group, Mapping):
        return [function for value in group.values() for function in _flatten(value)]
    if isinstance(group, (list, tuple)):
        return [function for value in group for function in _flatten(value)]
    return [group] if callable(group) else []


def _name_all(functions: Iterator[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_name(function) for function in functions))


def _name(function: Any) -> str:
    """The class or function that made it: "NAGuidance"."""
    plain = _plain(function)
    return getattr(plain, "__qualname__", type(function).__qualname__).partition(".")[0]


def _plain(function: Any) -> Any:
    """The Python function behind partials, bound methods and callable objects; None for built-in ones."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, types.MethodType):
        function = function.__func__
    if not isinstance(function, types.FunctionType):
        function = inspect.getattr_static(type(function), "__call__", None)
    if not isinstance(function, types.FunctionType) or function.__module__.startswith(_OWN):
        return None
    return function


def _list_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code and that of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _list_codes(constant)


def _mentions(function: Any, word: str) -> bool:
    plain = _plain(function)
    return plain is not None and any(
        word in code.co_consts or word in code.co_names for code in _list_codes(plain.__code__)
    )


def _keeps_state(function: Any) -> bool:
    plain = _plain(function)
    if plain is None:
        return False
    if _closed_over(plain).get("momentum", 1) == 0:
        return False  # as core's projected guidance has it by default: it writes, but reads nothing of it
    outer = set(plain.__code__.co_freevars)
    for code in _list_codes(plain.__code__):
        for step in dis.get_instructions(code):
            if step.opname == "STORE_DEREF" and step.argval in outer:
                return True
            if step.opname in ("STORE_ATTR", "STORE_GLOBAL"):
                return True
    return False


def _closed_over(function: types.FunctionType) -> dict[str, Any]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found = {}
    for name, cell in cells:
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not yet filled
            continue
    return found
