"""The graph that makes one of several results alone: what a picture's file carries.

ComfyUI writes the same graph into every picture of a run, so the fourth of four says the first one's seed.
Here the sampler's seed is the picture's own and results is 1: the file, dropped on the page, makes it again.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .request import SAMPLING_FIELDS

_CONTROL = "control_after_generate"
_NAMES = [field.name for field in SAMPLING_FIELDS]
# The page keeps a node's widgets as a list, the seed's control among them.
_PLACES = [*_NAMES[: _NAMES.index("seed") + 1], _CONTROL, *_NAMES[_NAMES.index("seed") + 1 :]]
_FIXED = "fixed"
SEEDS = "kleinod_seeds"
"""In a picture's file: the sampler's number -> the seeds of its pictures, first to last."""
_SAMPLER = "KleinodSampler"
_MOST = 500
# What samplers told since ComfyUI started, by all that their pictures come from.
_told: dict[str, list[int]] = {}


def prompt_of_one(prompt: Mapping[str, Any], node_id: str, seed: int) -> dict[str, Any]:
    """A queued prompt (API format) with the sampler `node_id` at one result of `seed`."""
    node = prompt.get(node_id)
    if node is None:
        return dict(prompt)
    return {**prompt, node_id: {**node, "inputs": {**node["inputs"], "seed": seed, "results": 1}}}


def workflow_of_one(workflow: Mapping[str, Any], node_id: str, seed: int) -> dict[str, Any]:
    """The same for the page's own format. A primitive that feeds the sampler is set in its place; a sampler
    inside a subgraph stays as it is.
    """
    changed = copy.deepcopy(dict(workflow))
    nodes = {str(node.get("id")): node for node in changed.get("nodes", ())}
    node = nodes.get(node_id)
    if node is None:
        return changed
    links = {link[0]: str(link[1]) for link in changed.get("links", ()) if isinstance(link, list)}
    for name, value in (("seed", seed), ("results", 1)):
        link = next((one.get("link") for one in node.get("inputs", ()) if one.get("name") == name), None)
        source = nodes.get(links.get(link, "")) if link is not None else None
        if source is None:
            _set(node.get("widgets_values"), _PLACES.index(name), value)
        elif str(source.get("type", "")).startswith("Primitive"):
            _set(source.get("widgets_values"), 0, value)
    return changed


def tell_seeds(prompt: Any, extra_pnginfo: Any, node_id: str, seeds: Sequence[int]) -> None:
    """Each picture's seed, in the order of the pictures, into every file that is saved of this run.

    extra_pnginfo: what ComfyUI hands all nodes of a run and writes into the files; its documents let nodes
    add to it. Nothing where the graph's own seed is that of the only picture. prompt: the run's; by it
    `tell_known_seeds` finds them again.
    """
    if not isinstance(extra_pnginfo, dict):
        return
    known = _digest(prompt, node_id) if isinstance(prompt, dict) else ""
    _told.pop(known, None)
    if len(seeds) > 1:
        extra_pnginfo.setdefault(SEEDS, {})[node_id] = list(seeds)
        _told[known] = list(seeds)
        if len(_told) > _MOST:
            _told.pop(next(iter(_told)))
    else:
        extra_pnginfo.get(SEEDS, {}).pop(node_id, None)


def tell_known_seeds(request: dict[str, Any]) -> dict[str, Any]:
    """For ComfyUI's `add_on_prompt_handler`: a sampler whose pictures ComfyUI still has does not run, and
    could not tell their seeds to what is saved of them now. Where it runs after all, it tells them itself.
    """
    prompt, data = request.get("prompt"), request.get("extra_data")
    info = data.get("extra_pnginfo") if isinstance(data, dict) else None
    if _told and isinstance(prompt, dict) and isinstance(info, dict):
        for node_id, node in prompt.items():
            if isinstance(node, dict) and node.get("class_type") == _SAMPLER:
                seeds = _told.get(_digest(prompt, node_id))
                if seeds:
                    info.setdefault(SEEDS, {})[node_id] = list(seeds)
    return request


def _digest(prompt: Mapping[str, Any], node_id: str) -> str:
    """Of everything that a node's outputs come from: where it is the same, so are they."""
    found: dict[str, Any] = {}
    todo = [node_id]
    while todo:
        number = todo.pop()
        node = prompt.get(number)
        if number not in found and isinstance(node, dict):
            inputs = node.get("inputs")
            found[number] = [node.get("class_type"), _whole(inputs)]
            values = inputs.values() if isinstance(inputs, dict) else ()
            todo += [str(value[0]) for value in values if isinstance(value, list) and len(value) == 2]
    return hashlib.sha256(json.dumps(found, sort_keys=True, default=repr).encode()).hexdigest()


def _whole(value: Any) -> Any:
    """4.0 as 4: ComfyUI writes numbers as the input's type while it checks them."""
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _set(values: Any, place: int, value: int) -> None:
    """Where a control stands behind the value, the page would change it after the next run: no more."""
    if not isinstance(values, list) or place >= len(values):
        return
    values[place] = value
    if place + 1 < len(values) and values[place + 1] in ("randomize", "increment", "decrement"):
        values[place + 1] = _FIXED
