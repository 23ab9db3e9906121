"""What a run's earlier steps are bound to: once any of it changes, they say nothing about the next step."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor

from ..base.transformer_options import MODEL_EDGES


def read_conditions(guider: Any, sigma: float, x: Tensor) -> Hashable:
    """A key of shape, guidance, and the conditions, hooks and ControlNets in force at `sigma`.

    guider: ComfyUI's CFGGuider (or one made from it) during a run. x: `[B, ...]` what the solver holds.
    """
    guidance = tuple(
        (name, value)
        for name, value in sorted(vars(guider).items())
        if name.startswith(("cfg", "neg_scale")) and isinstance(value, (int, float))
    )
    passed = tuple(sum(edge > sigma for edge in edges) for edges in list_edges(guider))
    return (tuple(x.shape), x.dtype, x.device, guidance, passed)


def list_edges(guider: Any) -> list[list[float]]:
    """For each condition, the sigmas at which it, a hook's keyframe or a ControlNet starts or stops."""
    edges: list[list[float]] = []
    for conditions in getattr(guider, "conds", {}).values():
        for condition in conditions:
            mine = [condition[name] for name in ("timestep_start", "timestep_end") if name in condition]
            for hook in getattr(condition.get("hooks"), "hooks", ()):
                mine += [frame.start_t for frame in hook.hook_keyframe.keyframes]
            control = condition.get("control")
            while control is not None:
                mine += list(control.timestep_range or ())
                control = control.previous_controlnet
            edges.append([float(edge) for edge in mine])
    options = guider.model_options.get("transformer_options", {})
    edges.append([float(edge) for edge in options.get(MODEL_EDGES, ())])
    return edges
