"""Saved workflows read as ComfyUI's page reads them: widget values by position, links by number."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

PAGE_ONLY = {"MarkdownNote", "Note", "Reroute", "PrimitiveNode"}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def load(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def list_known_nodes() -> dict[str, type]:
    """Every node of this ComfyUI by its type, with the pack's own, registered as ComfyUI does."""
    from kleinod.nodes import NODES

    import nodes

    if "SamplerCustomAdvanced" not in nodes.NODE_CLASS_MAPPINGS:
        asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    return {**nodes.NODE_CLASS_MAPPINGS, **{node.__name__: node for node in NODES}}


def inputs_of(node: type) -> dict[str, tuple]:
    """Input id to (type, options), required before optional, as the page orders them."""
    types = node.INPUT_TYPES()
    return {**types.get("required", {}), **types.get("optional", {})}


def is_widget(spec: tuple) -> bool:
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    return (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput")


def widget_names(node: type) -> list[str]:
    """Names of the values that the page saves for a node, in its order."""
    names = []
    for name, spec in inputs_of(node).items():
        if is_widget(spec):
            options = spec[1] if len(spec) > 1 else {}
            names.append(name)
            # A seed gets the widget unless its node says no.
            if options.get("control_after_generate", spec[0] == "INT" and name in ("seed", "noise_seed")):
                names.append("control_after_generate")
            if options.get("image_upload"):
                names.append("upload")
    return names


def read_graph(graph: dict, known: dict[str, type]) -> dict:
    """The prompt of a graph without subgraphs. An older file has fewer values; those that came since keep
    their defaults, which are not written.
    """
    sources = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    prompt = {}
    for node in graph["nodes"]:
        if node["type"] in PAGE_ONLY:
            continue
        names, values = widget_names(known[node["type"]]), node.get("widgets_values", [])
        assert len(values) <= len(names), f"{node['type']} has lost a widget: {names}"
        inputs = dict(zip(names, values, strict=False))
        inputs.pop("control_after_generate", None)
        inputs.pop("upload", None)
        for entry in node["inputs"]:
            if entry.get("link") is not None:
                inputs[entry["name"]] = sources[entry["link"]]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt
