"""What other nodes put on a MODEL that does not bear skipped work, read from its model options.

Two kinds. Patches that compare prompt and negative prompt inside one call (core's Normalized Attention
Guidance) need both branches in every step. Functions around guidance or around the model that keep something
from step to step (core's Adaptive Projected Guidance with momentum, caches of other packs) need every step.
Nobody announces either, so their code is read: a patch that looks for `cond_or_uncond`, a function that
writes variables, attributes or containers which outlive its call. Of wrappers only those of other packs are
read: ComfyUI's own belong to its nodes, which are tried beside ours one by one.
"""

from __future__ import annotations

import dis
import functools
import inspect
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..base.sentences import Sentence, say
from ..base.values import Acceleration

_OWN = __name__.rpartition(".nodes.")[0] or __name__.partition(".")[0]
# Called once a step where guidance is put together; a step that is forecast calls none of them.
AROUND_GUIDANCE = (
    "sampler_pre_cfg_function",
    "sampler_cfg_function",
    "sampler_post_cfg_function",
    "sampler_calc_cond_batch_function",
)
# Called once for each call of the network.
_AROUND_MODEL = "model_function_wrapper"
_WRAPPERS = ("predict_noise", "calc_cond_batch", "apply_model", "diffusion_model")
_OF_COMFYUI = ("comfy", "comfy_extras", "comfy_api", "comfy_api_nodes", "comfy_execution", "nodes")
_CONTAINERS = (dict, list, set, bytearray, deque)
_CHANGES = {
    "append",
    "appendleft",
    "extend",
    "insert",
    "update",
    "setdefault",
    "add",
    "pop",
    "popleft",
    "clear",
}


@dataclass(frozen=True)
class Attached:
    """Names of what was found. pairs: needs both branches of a step in one call. state: needs every step."""

    pairs: tuple[str, ...] = ()
    state: tuple[str, ...] = ()


def find_attached(model_options: Mapping[str, Any]) -> Attached:
    """What of a MODEL's options does not bear skipped work; our own functions are none of it."""
    transformer = model_options.get("transformer_options", {})
    groups = [*transformer.get("patches", {}).values(), *transformer.get("patches_replace", {}).values()]
    patches = [function for group in groups for function in flatten(group)]
    around = [
        function
        for name in (*AROUND_GUIDANCE, _AROUND_MODEL)
        for function in flatten(model_options.get(name))
    ]
    wrappers = transformer.get("wrappers", {})
    around += [
        function
        for kind in _WRAPPERS
        for function in flatten(wrappers.get(kind))
        if not _is_of_comfyui(function)
    ]
    return Attached(
        name_all(function for function in patches if _mentions(function, "cond_or_uncond")),
        name_all(function for function in around if _keeps_state(function)),
    )


def adapt(acceleration: Acceleration, attached: Attached) -> tuple[Acceleration, list[Sentence]]:
    """Settings that bear what is attached, and in words what was given up for it."""
    if attached.state:
        names = " + ".join(attached.state)
        off = Acceleration(acceleration="none")
        return off, [
            say(
                "%1 keeps something from step to step that skipped steps would spoil: every step was "
                "computed (to accelerate set its momentum to 0 or take it off)",
                names,
            )
        ]
    if attached.pairs and (acceleration.guidance_interval > 1 or acceleration.guidance_end_percentage < 100):
        names = " + ".join(attached.pairs)
        kept = replace(acceleration, guidance_interval=1, guidance_end_percentage=100)
        return kept, [
            say(
                "%1 compares prompt and negative prompt in every step: both ran in every computed one and "
                "guidance_interval and guidance_end_percentage were not used",
                names,
            )
        ]
    return acceleration, []


def flatten(group: Any) -> list[Any]:
    """All functions of a model option, whatever holds them."""
    if isinstance(group, Mapping):
        return [function for value in group.values() for function in flatten(value)]
    if isinstance(group, (list, tuple)):
        return [function for value in group for function in flatten(value)]
    return [group] if callable(group) else []


def name_all(functions: Iterable[Any]) -> tuple[str, ...]:
    """What made them, each once: "NAGuidance"."""
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


def places_of(function: Any) -> set[str]:
    """Where a function around guidance patches the model for a run of its own ("attn1"), as far as its code
    says so: core's Perturbed-Attention Guidance."""
    plain = _plain(function)
    places: set[str] = set()
    for code in _list_codes(plain.__code__) if plain is not None else ():
        calls = False
        for step in dis.get_instructions(code):
            if step.argval == "set_model_options_patch_replace":
                calls = True
            elif step.opname.startswith(("STORE_", "POP_TOP")):
                calls = False
            elif calls and step.opname == "LOAD_CONST" and isinstance(step.argval, str):
                places.add(step.argval)
    return places


def _is_of_comfyui(function: Any) -> bool:
    plain = _plain(function)
    return plain is None or plain.__module__.partition(".")[0] in _OF_COMFYUI


def _keeps_state(function: Any) -> bool:
    plain = _plain(function)
    if plain is None:
        return False
    closed_over = _closed_over(plain)
    if closed_over.get("momentum", 1) == 0:
        return False  # as core's projected guidance has it by default: it writes, but reads nothing of it
    outer = set(plain.__code__.co_freevars)
    lasting = {name for name, value in closed_over.items() if isinstance(value, _CONTAINERS)}
    lasting |= {
        name for name in plain.__code__.co_names if isinstance(plain.__globals__.get(name), _CONTAINERS)
    }
    own = _own_name(function, plain)
    for code in _list_codes(plain.__code__):
        loaded: list[str] = []  # what was loaded since the last statement, innermost last
        for step in dis.get_instructions(code):
            if step.opname == "STORE_DEREF" and step.argval in outer:
                return True
            if step.opname in ("STORE_ATTR", "STORE_GLOBAL"):
                return True
            lasts = bool(lasting & set(loaded)) or (own in loaded and "." in loaded)
            if step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE") and lasts:
                return True
            if step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                if step.argval in _CHANGES and lasts:
                    return True
                loaded.append(".")
            elif step.opname.startswith("LOAD_"):
                loaded += [step.argval] if isinstance(step.argval, str) else _names_of(step.argval)
            elif step.opname.startswith(("STORE_", "POP_TOP", "RETURN_", "DELETE_")):
                loaded.clear()
    return False


def _own_name(function: Any, plain: types.FunctionType) -> str:
    """How a method calls the object that it belongs to; "" where it belongs to none."""
    while isinstance(function, functools.partial):
        function = function.func
    bound = isinstance(function, types.MethodType) or not isinstance(function, types.FunctionType)
    return plain.__code__.co_varnames[0] if bound and plain.__code__.co_argcount else ""


def _names_of(argument: Any) -> list[str]:
    """Python 3.13 loads two variables in one instruction."""
    return [name for name in argument if isinstance(name, str)] if isinstance(argument, tuple) else []


def _closed_over(function: types.FunctionType) -> dict[str, Any]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found = {}
    for name, cell in cells:
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not yet filled
            continue
    return found
