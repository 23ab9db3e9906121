"""ComfyUI's inputs from the rows of `base/fields.py`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from comfy_api.v0_0_2 import io

from .fields import UNSET, Field


def make_input(field: Field, **changes: Any) -> io.Input:
    """The widget of a field. `changes` replace or add what ComfyUI's input takes, such as `tooltip`, a
    `default` that suits another node, or `options` only known when the node is made.
    """
    options: dict[str, Any] = {"default": field.widget_default, "tooltip": field.tooltip or None}
    options |= {name: True for name in ("optional", "advanced") if getattr(field, name)}
    if field.choices or "options" in changes:
        return io.Combo.Input(field.name, **({"options": list(field.choices)} | options | changes))
    if field.type is bool:
        return io.Boolean.Input(field.name, **(options | changes))
    if field.type is str:
        return io.String.Input(field.name, **(options | {"multiline": field.multiline} | changes))
    options |= _list_bounds(field)
    kind = io.Int if field.type is int else io.Float
    return kind.Input(field.name, **(options | changes))


def _list_bounds(field: Field) -> dict[str, Any]:
    low = UNSET if field.default is None else field.low
    high = field.high if field.widget_high is None else field.widget_high
    bounds = {"min": low, "max": high, "step": field.step, "round": field.decimals}
    if field.type is float:
        bounds = {name: None if value is None else float(value) for name, value in bounds.items()}
    else:
        bounds.pop("round")
        bounds["step"] = field.step or field.multiple
    return {name: value for name, value in bounds.items() if value is not None}


def make_inputs(fields: Iterable[Field]) -> list[io.Input]:
    """The widgets of several fields, in their order."""
    return [make_input(field) for field in fields]
