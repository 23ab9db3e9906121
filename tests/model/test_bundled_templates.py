"""Every FLUX.2 [klein] template that ComfyUI brings, as it is and converted to our nodes: the same picture.

A template's own graph is run node by node through ComfyUI's classes, with a small random Klein in place of
the files, small pictures and one step. What it was asked (words, seed, guidance, images in order) then goes
through Klein References, Klein Prompt and Klein Sampler.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import pytest
import torch
from comfy_api.v0_0_2 import io
from comfy_extras import nodes_custom_sampler, nodes_edit_model, nodes_flux, nodes_primitive
from kleinod.nodes.model.nano import load_nano
from kleinod.nodes.model.nodes import KleinodPrompt
from kleinod.nodes.references.nodes import KleinodReferences
from kleinod.nodes.sampling.nodes import KleinodSampler

from tests.model.tiny_klein import load_tiny_model

SIDES = ((128, 144), (160, 128))
FOLDER = resources.files("comfyui_workflow_templates_json") / "templates"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def klein_graphs() -> Iterator[tuple[str, dict, dict]]:
    """(name, graph, subgraphs by id) of every graph or subgraph that samples."""
    for file in sorted(FOLDER.iterdir(), key=lambda file: file.name):
        if "flux2_klein" not in file.name or not file.name.endswith(".json"):
            continue
        whole = json.loads(file.read_text(encoding="utf-8"))
        inner = {graph["id"]: graph for graph in whole.get("definitions", {}).get("subgraphs", [])}
        for number, graph in enumerate([whole, *inner.values()]):
            if any(node["type"] == "SamplerCustomAdvanced" for node in graph["nodes"]):
                yield f"{file.name.removesuffix('.json')}-{number}", graph, inner


GRAPHS = list(klein_graphs())


@pytest.fixture(scope="module")
def core_nodes() -> dict[str, type]:
    """ComfyUI's nodes by type, from the few modules that the templates use."""
    import nodes

    known = dict(nodes.NODE_CLASS_MAPPINGS)
    for module in (nodes_custom_sampler, nodes_edit_model, nodes_flux, nodes_primitive):
        for node in vars(module).values():
            if isinstance(node, type) and issubclass(node, io.ComfyNode) and node is not io.ComfyNode:
                known[node.define_schema().node_id] = node
    return known


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    _, clip, vae = load_nano()
    return {"model": load_tiny_model(), "clip": clip, "vae": vae}


@dataclass
class Bench:
    """Runs a saved graph; `asked` notes what a conversion has to say."""

    nodes: dict[str, type]
    parts: dict[str, Any]
    inner: dict[str, dict]
    asked: dict[str, Any] = field(default_factory=lambda: {"images": [], "texts": [], "loaded": []})

    def run(self, graph: dict, wanted: tuple[int, int], given: list[Any]) -> Any:
        """The value at output `wanted` (node id, slot); `given` are the inputs of a subgraph."""
        links = {}
        for link in graph["links"]:
            values = link if isinstance(link, list) else [link["id"], link["origin_id"], link["origin_slot"]]
            links[values[0]] = (values[1], values[2])
        nodes = {node["id"]: node for node in graph["nodes"]}
        done: dict[int, tuple] = {}

        def value(place: tuple[int, int]) -> Any:
            number, slot = place
            if number == graph.get("inputNode", {}).get("id"):
                return given[slot]
            if number not in done:
                node = nodes[number]
                linked = {
                    entry["name"]: value(links[entry["link"]])
                    for entry in node["inputs"]
                    if entry.get("link") is not None
                }
                done[number] = self.call(node, {k: v for k, v in linked.items() if v is not None})
            return done[number][slot]

        return value(wanted)

    def call(self, node: dict, linked: dict[str, Any]) -> tuple:
        kind = node["type"]
        if kind in self.inner:
            graph = self.inner[kind]
            given = [linked.get(entry["name"]) for entry in graph["inputs"]]
            ends = {
                link["target_slot"]: (link["origin_id"], link["origin_slot"])
                for link in graph["links"]
                if link["target_id"] == graph["outputNode"]["id"]
            }
            return tuple(self.run(graph, ends[slot], given) for slot in range(len(graph["outputs"])))
        if kind == "LoadImage":
            return (picture(len(self.asked["loaded"])), self.asked["loaded"].append(node["id"]))
        loaders = {"UNETLoader": "model", "CLIPLoader": "clip", "VAELoader": "vae"}
        if kind in loaders:
            return (self.parts[loaders[kind]],)
        if kind == "ImageScaleToTotalPixels":
            return (linked["image"],)
        if kind == "GetImageSize":
            return (linked["image"].shape[2], linked["image"].shape[1], 1)
        return self.execute(kind, {**self.widgets(node), **linked})

    def widgets(self, node: dict) -> dict[str, Any]:
        """Saved widget values by input name, as the page orders them."""
        types = self.nodes[node["type"]].INPUT_TYPES()
        values, named = iter(node.get("widgets_values") or []), {}
        for name, spec in {**types.get("required", {}), **types.get("optional", {})}.items():
            options = spec[1] if len(spec) > 1 else {}
            if (isinstance(spec[0], list) or spec[0] in WIDGETS) and not options.get("forceInput"):
                named[name] = next(values)
                if options.get("control_after_generate"):
                    next(values)
        return named

    def execute(self, kind: str, inputs: dict[str, Any]) -> tuple:
        """One core node, made small where it would be large, and noted where it says what is asked."""
        if kind in ("Flux2Scheduler", "EmptyFlux2LatentImage"):
            inputs |= {name: min(inputs[name], 160) for name in ("width", "height")}
            self.asked["size"] = inputs["width"], inputs["height"]
        if kind == "Flux2Scheduler":
            inputs["steps"] = 1
        if kind == "RandomNoise":
            inputs["noise_seed"] %= 2**32
            self.asked["seed"] = inputs["noise_seed"]
        if kind == "CFGGuider":
            self.asked |= {"guidance": inputs["cfg"], "model": inputs["model"]}
        if kind == "KSamplerSelect":
            self.asked["sampler"] = inputs["sampler_name"]
        if kind == "CLIPTextEncode":
            self.asked["texts"].append(inputs["text"])
        if kind == "VAEEncode" and not any(inputs["pixels"] is image for image in self.asked["images"]):
            self.asked["images"].append(inputs["pixels"])
        node = self.nodes[kind]
        if issubclass(node, io.ComfyNode):
            return tuple(node.execute(**inputs).args)
        return tuple(getattr(node(), node.FUNCTION)(**inputs))


def picture(number: int) -> torch.Tensor:
    width, height = SIDES[number % 2]
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(number))


def convert(asked: dict[str, Any], parts: dict[str, Any]) -> torch.Tensor:
    """The same request through our nodes."""
    references, size = None, asked["size"]
    if asked["images"]:
        sockets = {f"image_{n}": [image] for n, image in enumerate(asked["images"], start=1)}
        made = KleinodReferences.execute(
            sockets, ["megapixels per image"], [1.0], [1], ["white"], ["hide the rest"]
        ).args
        references, size = made[0], made[1:3]
    positive, negative = KleinodPrompt.execute(
        parts["clip"],
        asked["texts"][0],
        asked["texts"][-1] if len(asked["texts"]) > 1 else "",
        references,
        parts["vae"],
    ).args[:2]
    return KleinodSampler.execute(
        asked["model"],
        positive,
        negative,
        parts["vae"],
        *size,
        1,
        float(asked["guidance"]),
        asked["seed"],
        "Default",
        1,
    ).args[0]


def test_the_templates_are_there() -> None:
    assert len(GRAPHS) >= 10
    assert {name.rsplit("-", 1)[0] for name, *_ in GRAPHS} >= {
        "image_flux2_klein_text_to_image",
        "image_flux2_klein_image_edit_4b_base",
        "image_flux2_klein_9b_kv_image_edit",
    }


@pytest.mark.parametrize(("graph", "inner"), [g[1:] for g in GRAPHS], ids=[g[0] for g in GRAPHS])
def test_converted_to_our_nodes(
    graph: dict, inner: dict, core_nodes: dict[str, type], parts: dict[str, Any]
) -> None:
    bench = Bench(core_nodes, parts, inner)
    images = iter(range(9))
    given = [
        picture(next(images)) if entry["name"].startswith("image") else None
        for entry in graph.get("inputs", [])
    ]
    (decoder,) = [node["id"] for node in graph["nodes"] if node["type"] == "VAEDecode"]
    with torch.inference_mode():
        expected = bench.run(graph, (decoder, 0), given)
        made = convert(bench.asked, parts)
    assert bench.asked["sampler"] == "euler"
    assert len(bench.asked["images"]) == len(bench.asked["loaded"]) + sum(
        image is not None for image in given
    )
    assert torch.equal(made, expected)
