"""Makes `subgraphs/NAME.json`, blueprints of ComfyUI's node library.

    python -m tools.shipped.blueprints [NAME ...]

A blueprint is one subgraph node and its definition. Its inner nodes are taken from the shipped workflows,
with their values, and wired as there; `BLUEPRINTS` adds what its user finds on the outside, and the layout.
The same sources always give the same bytes, so a test sees a blueprint that was forgotten after a change.
"""

from __future__ import annotations

import copy
import json
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.shipped.layouts import BLUE, GREEN, Group, Place, draw_groups

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"
FOLDER = ROOT / "subgraphs"
CATEGORY = "Kleinod"

_WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
_ENTRANCE, _EXIT = -10, -20  # the ids that the page gives to the two ends of every subgraph
# The page numbers a graph and all its subgraphs as one: where two nodes, links or groups have the same id it
# renumbers one of them, and warns. So the inside of each blueprint has a range of its own, above what a graph
# of a user counts to: dropped beside any other one, it keeps its ids.
_FIRST_RANGE, _RANGE = 1000, 100
_TITLE = 30  # the title bar of a node lies that far above its place

FindNode = Callable[[str], Any]
"""The node class of a type, as ComfyUI registered it."""


@dataclass(frozen=True)
class Inlet:
    """An input on the outside and the inner inputs, "id.name", that it feeds; the first gives its widget."""

    name: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Outlet:
    """An output on the outside and the inner output, "id.name", that it shows."""

    name: str
    source: str


@dataclass(frozen=True)
class Blueprint:
    """`nodes`: the places of the nodes it takes from `workflow`, by id. `wires`: links that are not there, as
    ("id.output", "id.input"). `values`: widget values other than there, by "id.name". `more`: nodes of other
    workflows, without their links there, as id -> (workflow, its id there, place here).
    """

    workflow: str
    description: str
    aliases: tuple[str, ...]
    nodes: dict[int, Place]
    inlets: tuple[Inlet, ...]
    outlets: tuple[Outlet, ...]
    groups: tuple[Group, ...]
    size: tuple[int, int]
    wires: tuple[tuple[str, str], ...] = ()
    values: dict[str, object] = field(default_factory=dict)
    more: dict[int, tuple[str, int, Place]] = field(default_factory=dict)

    @property
    def places(self) -> dict[int, Place]:
        return self.nodes | {number: place for number, (_, _, place) in self.more.items()}


_NANO = (
    " Starts with klein-nano, which is built in; for real pictures choose FLUX.2 [klein] in diffusion_model"
)

# An edit with Klein Keep (7) behind it: what goes in and comes out, whoever edits.
_TO_KEEP = (
    Inlet("image", ("4.images.image_1", "7.original")),
    Inlet("image_2", ("4.images.image_2",)),
    Inlet("mask", ("7.mask",)),
)
_KEPT = (Outlet("image", "7.image"), Outlet("sheet", "7.sheet"), Outlet("report", "7.info"))
# Where a service (14) edits, between Klein References (4) and Klein Keep.
_BESIDE_PAID = {4: (0, 60, 400, 690), 7: (920, 60, 420, 420)}
_PAID_WIRES = (
    ("4.references", "14.references"),
    ("4.width", "14.width"),
    ("4.height", "14.height"),
    ("14.images", "7.edited"),
)


BLUEPRINTS = {
    "Klein - Text to Image": Blueprint(
        workflow="Klein - Text to Image",
        description="A picture from words with FLUX.2 [klein]: model, prompt and sampler in one node."
        + _NANO
        + " and a width and height of 1024.",
        aliases=("klein", "flux.2", "txt2img", "t2i", "generate"),
        nodes={1: (0, 60, 400, 270), 2: (0, 390, 400, 360), 3: (460, 60, 380, 690)},
        inlets=(
            Inlet("prompt", ("2.positive",)),
            Inlet("negative_prompt", ("2.negative",)),
            Inlet("width", ("3.width",)),
            Inlet("height", ("3.height",)),
            Inlet("steps", ("3.steps",)),
            Inlet("guidance", ("3.guidance",)),
            Inlet("seed", ("3.seed",)),
            Inlet("results", ("3.results",)),
            Inlet("acceleration", ("3.acceleration",)),
            Inlet("diffusion_model", ("1.diffusion_model",)),
        ),
        outlets=(Outlet("image", "3.image"), Outlet("report", "3.report")),
        groups=(
            Group("1  Model and prompt", (-20, -20, 440, 790)),
            Group("2  Picture", (440, -20, 420, 790), GREEN),
        ),
        size=(420, 560),
        values={"3.results": 1},
    ),
    "Klein - Edit": Blueprint(
        workflow="Klein - Edit with References",
        description="Changes a picture by words with FLUX.2 [klein]; the result lies exactly over the"
        " original. The prompt may speak of image 1 and, when it is connected, of image 2." + _NANO + ".",
        aliases=("klein", "flux.2", "edit", "kontext", "reference", "img2img"),
        nodes={
            1: (0, 60, 400, 270),
            6: (0, 390, 400, 690),
            8: (460, 60, 400, 260),
            9: (460, 390, 400, 690),
        },
        wires=(("6.width", "9.width"), ("6.height", "9.height")),
        inlets=(
            Inlet("image", ("6.images.image_1",)),
            Inlet("image_2", ("6.images.image_2",)),
            Inlet("prompt", ("8.positive",)),
            Inlet("negative_prompt", ("8.negative",)),
            Inlet("steps", ("9.steps",)),
            Inlet("guidance", ("9.guidance",)),
            Inlet("seed", ("9.seed",)),
            Inlet("results", ("9.results",)),
            Inlet("acceleration", ("9.acceleration",)),
            Inlet("diffusion_model", ("1.diffusion_model",)),
        ),
        outlets=(Outlet("image", "9.image"), Outlet("sheet", "6.sheet"), Outlet("report", "9.report")),
        groups=(
            Group("1  Model and references", (-20, -20, 440, 1120)),
            Group("2  The edit", (440, -20, 440, 1120), GREEN),
        ),
        size=(420, 540),
        values={"8.positive": "image 1 on a pink background"},
    ),
    "Klein - Reference Control": Blueprint(
        workflow="Klein - Reference Control",
        description="Makes a picture from references with FLUX.2 [klein], each of which counts as much, in"
        " the steps and at the place that you say: weights, steps, masks over the new picture." + _NANO + ".",
        aliases=("klein", "flux.2", "reference", "identity", "likeness", "reference strength", "regional"),
        nodes={
            1: (0, 60, 400, 270),
            6: (0, 390, 400, 800),
            8: (460, 60, 400, 260),
            9: (460, 390, 400, 720),
        },
        inlets=(
            Inlet("image", ("6.images.image_1",)),
            Inlet("image_2", ("6.images.image_2",)),
            Inlet("place", ("6.places.place_1",)),
            Inlet("place_2", ("6.places.place_2",)),
            Inlet("prompt", ("8.positive",)),
            Inlet("negative_prompt", ("8.negative",)),
            Inlet("weights", ("6.weights",)),
            Inlet("reference_steps", ("6.steps",)),
            Inlet("image_guidance", ("9.image_guidance",)),
            Inlet("width", ("9.width",)),
            Inlet("height", ("9.height",)),
            Inlet("steps", ("9.steps",)),
            Inlet("guidance", ("9.guidance",)),
            Inlet("seed", ("9.seed",)),
            Inlet("results", ("9.results",)),
            Inlet("acceleration", ("9.acceleration",)),
            Inlet("diffusion_model", ("1.diffusion_model",)),
        ),
        outlets=(Outlet("image", "9.image"), Outlet("sheet", "6.sheet"), Outlet("report", "9.report")),
        groups=(
            Group("1  Model and references", (-20, -20, 440, 1230)),
            Group("2  Picture", (440, -20, 440, 1230), GREEN),
        ),
        size=(420, 700),
    ),
    "Klein - Inpaint": Blueprint(
        workflow="Klein - Inpaint",
        description="Paints anew what a mask marks, with FLUX.2 [klein]; outside the mask not a bit of the"
        " picture changes. The prompt may speak of image 1, the place as it is." + _NANO + ".",
        aliases=("klein", "flux.2", "inpaint", "fill", "mask", "replace object", "remove object"),
        nodes={1: (0, 60, 400, 270), 7: (460, 60, 420, 1060)},
        inlets=(
            Inlet("image", ("7.image",)),
            Inlet("mask", ("7.mask",)),
            Inlet("references", ("7.references",)),
            Inlet("prompt", ("7.prompt",)),
            Inlet("region_prompts", ("7.region_prompts",)),
            Inlet("area", ("7.area",)),
            Inlet("strength", ("7.strength",)),
            Inlet("steps", ("7.steps",)),
            Inlet("guidance", ("7.guidance",)),
            Inlet("seed", ("7.seed",)),
            Inlet("grow", ("7.grow",)),
            Inlet("feather", ("7.feather",)),
            Inlet("results", ("7.results",)),
            Inlet("diffusion_model", ("1.diffusion_model",)),
        ),
        outlets=(Outlet("image", "7.image"), Outlet("mask", "7.mask"), Outlet("report", "7.info")),
        groups=(
            Group("1  Model", (-20, -20, 440, 370)),
            Group("2  Paint what the mask marks", (440, -20, 460, 1160), GREEN),
        ),
        size=(420, 660),
        values={"7.area": "crop"},
    ),
    "Klein - Outpaint": Blueprint(
        workflow="Klein - Outpaint",
        description="Paints what lies beyond the edges of a picture, with FLUX.2 [klein]: pixels a side, a"
        " shape or a size. The old picture stays bit for bit, but for a narrow overlap." + _NANO + ".",
        aliases=("klein", "flux.2", "outpaint", "uncrop", "expand", "extend", "zoom out"),
        nodes={1: (0, 60, 400, 270), 7: (460, 60, 420, 1060)},
        inlets=(
            Inlet("image", ("7.image",)),
            Inlet("references", ("7.references",)),
            Inlet("prompt", ("7.prompt",)),
            Inlet("extend", ("7.extend",)),
            Inlet("left", ("7.left",)),
            Inlet("top", ("7.top",)),
            Inlet("right", ("7.right",)),
            Inlet("bottom", ("7.bottom",)),
            Inlet("aspect", ("7.aspect",)),
            Inlet("width", ("7.width",)),
            Inlet("height", ("7.height",)),
            Inlet("anchor", ("7.anchor",)),
            Inlet("steps", ("7.steps",)),
            Inlet("guidance", ("7.guidance",)),
            Inlet("seed", ("7.seed",)),
            Inlet("results", ("7.results",)),
            Inlet("diffusion_model", ("1.diffusion_model",)),
        ),
        outlets=(Outlet("image", "7.image"), Outlet("mask", "7.mask"), Outlet("report", "7.info")),
        groups=(
            Group("1  Model", (-20, -20, 440, 370)),
            Group("2  Paint what lies beyond its edges", (440, -20, 460, 1160), GREEN),
        ),
        size=(420, 720),
        values={"7.right": 256, "7.overlap": 16},
    ),
    "Klein - Edit and Keep": Blueprint(
        workflow="Klein - Edit and Keep",
        description="Changes a picture by words with FLUX.2 [klein], and lays only the change over the"
        " original: the rest stays bit for bit. A mask, when it is connected, says what may change."
        + _NANO
        + ".",
        aliases=("klein", "flux.2", "edit", "keep", "colour shift", "identity", "img2img"),
        nodes={
            1: (0, 60, 400, 270),
            4: (0, 390, 400, 690),
            5: (460, 60, 400, 260),
            6: (460, 390, 400, 690),
            7: (920, 60, 420, 420),
        },
        wires=(("4.width", "6.width"), ("4.height", "6.height")),
        inlets=(
            *_TO_KEEP,
            Inlet("prompt", ("5.positive",)),
            Inlet("negative_prompt", ("5.negative",)),
            Inlet("steps", ("6.steps",)),
            Inlet("guidance", ("6.guidance",)),
            Inlet("seed", ("6.seed",)),
            Inlet("acceleration", ("6.acceleration",)),
            Inlet("diffusion_model", ("1.diffusion_model",)),
        ),
        outlets=_KEPT,
        groups=(
            Group("1  Model and references", (-20, -20, 440, 1120)),
            Group("2  The edit", (440, -20, 440, 1120)),
            Group("3  Keep all but the change", (900, -20, 460, 520), GREEN),
        ),
        size=(420, 540),
        values={"5.positive": "image 1 on a pink background"},
    ),
    "Klein - Edit with Runware": Blueprint(
        workflow="Klein - Edit and Keep",
        description="Changes a picture by words through the Runware API, which costs money and needs a key"
        " (Settings > Kleinod > API keys), and lays only the change over the original: a paid edit comes back"
        " with the rest of the picture as it was, bit for bit.",
        aliases=("klein", "flux.2", "runware", "api", "edit", "keep", "colour shift"),
        nodes=_BESIDE_PAID,
        more={14: ("Klein - Runware", 2, (460, 60, 400, 950))},
        wires=_PAID_WIRES,
        inlets=(
            *_TO_KEEP,
            Inlet("prompt", ("14.positive_prompt",)),
            Inlet("negative_prompt", ("14.negative_prompt",)),
            Inlet("steps", ("14.steps",)),
            Inlet("guidance", ("14.cfg_scale",)),
            Inlet("seed", ("14.seed",)),
        ),
        outlets=(*_KEPT, Outlet("cost", "14.cost")),
        groups=(
            Group("1  The picture", (-20, -20, 440, 790)),
            Group("2  The Runware API", (440, -20, 440, 1050), BLUE),
            Group("3  Keep all but the change", (900, -20, 460, 520), GREEN),
        ),
        size=(420, 460),
        values={"14.number_results": 1, "14.positive_prompt": "image 1 on a pink background"},
    ),
    "Klein - Edit with BFL": Blueprint(
        workflow="Klein - Edit and Keep",
        description="Changes a picture by words through the API of Black Forest Labs, which costs money and"
        " needs a key (Settings > Kleinod > API keys), and lays only the change over the original: a paid"
        " edit comes back with the rest of the picture as it was, bit for bit.",
        aliases=("klein", "flux.2", "bfl", "black forest labs", "api", "edit", "keep"),
        nodes=_BESIDE_PAID,
        more={14: ("Klein - BFL", 1, (460, 60, 400, 800))},
        wires=_PAID_WIRES,
        inlets=(
            *_TO_KEEP,
            Inlet("prompt", ("14.prompt",)),
            Inlet("seed", ("14.seed",)),
        ),
        outlets=(*_KEPT, Outlet("cost", "14.cost")),
        groups=(
            Group("1  The picture", (-20, -20, 440, 790)),
            Group("2  The BFL API", (440, -20, 440, 900), BLUE),
            Group("3  Keep all but the change", (900, -20, 460, 520), GREEN),
        ),
        size=(420, 400),
        values={"14.prompt": "image 1 on a pink background"},
    ),
    "Klein - Face Refine": Blueprint(
        workflow="Klein - Face Refine",
        description="Finds the faces of a picture and paints each anew at full size; not a bit changes"
        " outside their masks. A mask, when it is connected, replaces the detector."
        + _NANO
        + ", the preset Klein, an inpaint_size of 1024 and a YOLO file as detector.",
        aliases=("klein", "flux.2", "face detailer", "adetailer", "face fix", "inpaint faces"),
        nodes={1: (0, 60, 400, 270), 11: (0, 390, 400, 720), 12: (460, 60, 420, 900)},
        inlets=(
            Inlet("image", ("12.image",)),
            Inlet("mask", ("12.mask",)),
            Inlet("prompt", ("11.positive_prompt",)),
            Inlet("face_prompts", ("12.face_prompts",)),
            Inlet("detector", ("12.detector",)),
            Inlet("preset", ("11.preset",)),
            Inlet("strength", ("11.strength",)),
            Inlet("steps", ("11.steps",)),
            Inlet("inpaint_size", ("11.inpaint_size",)),
            Inlet("seed", ("12.seed",)),
            Inlet("diffusion_model", ("1.diffusion_model",)),
        ),
        outlets=(
            Outlet("image", "12.image"),
            Outlet("mask", "12.mask"),
            Outlet("found", "12.preview"),
            Outlet("report", "12.info"),
        ),
        groups=(
            Group("1  Model and settings", (-20, -20, 440, 1150)),
            Group("2  Find the faces and paint them anew", (440, -20, 460, 1150), GREEN),
        ),
        size=(420, 560),
        values={"12.face_prompts": ""},
    ),
    "Klein - Local or Remote": Blueprint(
        workflow="Klein - Local or Remote",
        description="One request, two ways: use_api off paints on this computer, on sends the same to the"
        " Runware API, which costs money and needs a key (Settings > Kleinod > API keys). Only the wanted"
        " half runs." + _NANO + " and a width and height of 1024.",
        aliases=("klein", "flux.2", "runware", "api", "cloud", "switch"),
        nodes={
            1: (0, 60, 400, 270),
            2: (0, 390, 400, 360),
            3: (460, 60, 380, 690),
            4: (460, 880, 380, 940),
            5: (920, 60, 300, 130),
        },
        wires=(("1.vae", "2.vae"),),
        inlets=(
            Inlet("references", ("2.references", "4.references")),
            Inlet("acceleration_settings", ("3.acceleration_settings", "4.acceleration")),
            Inlet("use_api", ("5.switch",)),
            Inlet("prompt", ("2.positive", "4.positive_prompt")),
            Inlet("negative_prompt", ("2.negative", "4.negative_prompt")),
            Inlet("width", ("3.width", "4.width")),
            Inlet("height", ("3.height", "4.height")),
            Inlet("steps", ("3.steps", "4.steps")),
            Inlet("guidance", ("3.guidance", "4.cfg_scale")),
            Inlet("seed", ("3.seed", "4.seed")),
            Inlet("results", ("3.results", "4.number_results")),
            Inlet("diffusion_model", ("1.diffusion_model",)),
        ),
        outlets=(Outlet("image", "5.output"),),
        groups=(
            Group("1  My GPU", (-20, -20, 880, 790), BLUE),
            Group("2  The Runware API", (440, 810, 420, 1030), GREEN),
        ),
        size=(420, 600),
    ),
}


def build_blueprint(name: str, find_node: FindNode) -> dict[str, Any]:
    """The file of one blueprint; KeyError or ValueError where it names what its nodes do not have."""
    blueprint = BLUEPRINTS[name]
    graph = _read_workflow(blueprint.workflow)
    links = {link[0]: link for link in graph["links"]}
    nodes = {node["id"]: copy.deepcopy(node) for node in graph["nodes"] if node["id"] in blueprint.nodes}
    wires = _list_wires(nodes, links) + [(_split(source), _split(to)) for source, to in blueprint.wires]
    for number, (workflow, there, _) in blueprint.more.items():
        (node,) = (node for node in _read_workflow(workflow)["nodes"] if node["id"] == there)
        nodes[number] = {**copy.deepcopy(node), "id": number}
    for number, node in nodes.items():
        _prepare(node, find_node(node["type"]), blueprint, number)
    inside = _Wiring(nodes)
    for (source, outlet), (target, inlet) in wires:
        inside.join(source, inside.output(source, outlet), target, inside.input(target, inlet))
    inlets = [_open_inlet(name, slot, inlet, inside) for slot, inlet in enumerate(blueprint.inlets)]
    outlets = [_open_outlet(name, slot, outlet, inside) for slot, outlet in enumerate(blueprint.outlets)]
    file = _write_file(name, blueprint, list(nodes.values()), inside.links, inlets, outlets)
    _keep_apart(name, file)
    return file


def id_inside(name: str, number: int) -> int:
    """The id of node, link or group `number` of a blueprint in its file."""
    if number >= _RANGE:
        raise ValueError(f"{name} has a node, link or group {number}: its range of ids holds {_RANGE}")
    return _FIRST_RANGE + _RANGE * list(BLUEPRINTS).index(name) + number


def _keep_apart(name: str, file: dict[str, Any]) -> None:
    """Move every id of the inside, and what speaks of it, into the blueprint's own range."""
    (inside,) = file["definitions"]["subgraphs"]
    for node in inside["nodes"]:
        node["id"] = id_inside(name, node["id"])
        for entry in node["inputs"]:
            entry["link"] = None if entry["link"] is None else id_inside(name, entry["link"])
        for entry in node["outputs"]:
            entry["links"] = [id_inside(name, number) for number in entry["links"]]
    for link in inside["links"]:
        link["id"] = id_inside(name, link["id"])
        for end in ("origin_id", "target_id"):
            if link[end] not in (_ENTRANCE, _EXIT):
                link[end] = id_inside(name, link[end])
    for slot in inside["inputs"] + inside["outputs"]:
        slot["linkIds"] = [id_inside(name, number) for number in slot["linkIds"]]
    for group in inside["groups"]:
        group["id"] = id_inside(name, group["id"])
    for counter, owners in (("lastNodeId", "nodes"), ("lastLinkId", "links"), ("lastGroupId", "groups")):
        inside["state"][counter] = max(owner["id"] for owner in inside[owners])
    file["last_node_id"], file["last_link_id"] = inside["state"]["lastNodeId"], inside["state"]["lastLinkId"]


def _read_workflow(name: str) -> dict[str, Any]:
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def _split(place: str) -> tuple[int, str]:
    number, _, name = place.partition(".")
    return int(number), name


def _list_wires(nodes: dict[int, dict], links: dict[int, list]) -> list[tuple]:
    """The workflow's links between the nodes that are taken, by names."""
    wires = []
    for node in nodes.values():
        for entry in node["inputs"]:
            if entry.get("link") is not None:
                _, source, slot, *_ = links[entry["link"]]
                if source in nodes:
                    outlet = nodes[source]["outputs"][slot]["name"]
                    wires.append(((source, outlet), (node["id"], entry["name"])))
    return wires


def _prepare(node: dict, kind: Any, blueprint: Blueprint, number: int) -> None:
    """Cut all links, give the node its place and values, and list its widgets as inputs for links."""
    x, y, width, height = blueprint.places[number]
    node["pos"], node["size"] = [x, y], [width, height]
    for entry in node["inputs"]:
        entry["link"] = None
    for entry in node["outputs"]:
        entry["links"] = []
    widgets = list_widgets(kind)
    present = {entry["name"] for entry in node["inputs"]}
    node["inputs"] += [
        {"name": name, "type": kind, "widget": {"name": name}, "link": None}
        for name, kind in widgets
        if kind is not None and name not in present
    ]
    names = [name for name, _ in widgets]
    for place, value in blueprint.values.items():
        owner, name = _split(place)
        if owner == number:
            node["widgets_values"][names.index(name)] = value


def list_widgets(kind: Any) -> list[tuple[str, str | None]]:
    """Names and types of the values that the page saves for a node, in its order; the type of a value that no
    link can reach (what becomes of a seed after a run) is None.
    """
    widgets: list[tuple[str, str | None]] = []
    types = kind.INPUT_TYPES()
    for name, spec in {**types.get("required", {}), **types.get("optional", {})}.items():
        options = spec[1] if len(spec) > 1 else {}
        kind_of = "COMBO" if isinstance(spec[0], list) else spec[0]
        if kind_of in _WIDGETS and not options.get("forceInput"):
            widgets.append((name, kind_of))
            if options.get("control_after_generate"):
                widgets.append(("control_after_generate", None))
    return widgets


class _Wiring:
    """The links inside, numbered from 1, and the slots they join."""

    def __init__(self, nodes: dict[int, dict]) -> None:
        self.nodes = nodes
        self.links: list[dict[str, Any]] = []

    def input(self, number: int, name: str) -> int:
        return [entry["name"] for entry in self.nodes[number]["inputs"]].index(name)

    def output(self, number: int, name: str) -> int:
        return [entry["name"] for entry in self.nodes[number]["outputs"]].index(name)

    def join(self, source: int, outlet: int, target: int, inlet: int, kind: str = "") -> int:
        """Add a link; `kind` is needed only where its source is no inner node."""
        number = len(self.links) + 1
        if source in self.nodes:
            self.nodes[source]["outputs"][outlet]["links"].append(number)
            kind = self.nodes[source]["outputs"][outlet]["type"]
        if target in self.nodes:
            entry = self.nodes[target]["inputs"][inlet]
            if entry["link"] is not None:
                raise ValueError(f"{entry['name']} of node {target} already has a link")
            entry["link"] = number
        self.links.append(
            {
                "id": number,
                "origin_id": source,
                "origin_slot": outlet,
                "target_id": target,
                "target_slot": inlet,
                "type": kind,
            }
        )
        return number


def _open_inlet(blueprint: str, slot: int, inlet: Inlet, inside: _Wiring) -> dict[str, Any]:
    places = [(number, inside.input(number, name)) for number, name in map(_split, inlet.targets)]
    first = inside.nodes[places[0][0]]["inputs"][places[0][1]]
    kind = first["type"]
    numbers = [inside.join(_ENTRANCE, slot, number, place, kind) for number, place in places]
    own = _name_id(blueprint, "in", inlet.name)
    opened = {"id": own, "name": inlet.name, "type": kind, "linkIds": numbers}
    return {**opened, "_widget": "widget" in first, "_shape": first.get("shape")}


def _open_outlet(blueprint: str, slot: int, outlet: Outlet, inside: _Wiring) -> dict[str, Any]:
    number, name = _split(outlet.source)
    place = inside.output(number, name)
    link = inside.join(number, place, _EXIT, slot)
    kind = inside.nodes[number]["outputs"][place]["type"]
    own = _name_id(blueprint, "out", outlet.name)
    return {"id": own, "name": outlet.name, "type": kind, "linkIds": [link]}


def _name_id(*names: str) -> str:
    """Ids that stay the same from one making to the next."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "kleinod:blueprint:" + ":".join(names)))


def _write_file(
    name: str,
    blueprint: Blueprint,
    nodes: list[dict],
    links: list[dict],
    inlets: list[dict],
    outlets: list[dict],
) -> dict[str, Any]:
    kind = _name_id(name)
    shown = [_show_inlet(inlet) for inlet in inlets]
    slots = [{key: value for key, value in inlet.items() if not key.startswith("_")} for inlet in inlets]
    right = max(x + width for x, _, width, _ in blueprint.places.values())
    return {
        "id": _name_id(name, "file"),
        "revision": 0,
        "last_node_id": 0,
        "last_link_id": 0,
        "nodes": [
            {
                "id": 1,
                "type": kind,
                "pos": [0, 0],
                "size": list(blueprint.size),
                "flags": {},
                "order": 0,
                "mode": 0,
                "inputs": shown,
                "outputs": [{"name": slot["name"], "type": slot["type"], "links": []} for slot in outlets],
                "title": name,
                "properties": {},
                "widgets_values": [],
            }
        ],
        "links": [],
        "groups": [],
        "definitions": {
            "subgraphs": [
                {
                    "id": kind,
                    "version": 1,
                    "state": {"lastGroupId": 0, "lastNodeId": 0, "lastLinkId": 0, "lastRerouteId": 0},
                    "revision": 0,
                    "config": {},
                    "name": name,
                    "category": CATEGORY,
                    "description": blueprint.description,
                    "inputNode": {"id": _ENTRANCE, "bounding": [-260, 60, 160, 40 + 20 * len(slots)]},
                    "outputNode": {"id": _EXIT, "bounding": [right + 100, 60, 120, 40 + 20 * len(outlets)]},
                    "inputs": slots,
                    "outputs": outlets,
                    "widgets": [],
                    "nodes": nodes,
                    "groups": draw_groups(blueprint.groups),
                    "links": links,
                    "extra": {},
                }
            ]
        },
        "config": {},
        "extra": {
            "BlueprintDescription": blueprint.description,
            "BlueprintSearchAliases": list(blueprint.aliases),
        },
        "version": 0.4,
    }


def _show_inlet(inlet: dict[str, Any]) -> dict[str, Any]:
    """How the node on the outside lists an input."""
    entry: dict[str, Any] = {"name": inlet["name"], "type": inlet["type"], "link": None}
    if inlet["_widget"]:
        entry["widget"] = {"name": inlet["name"]}
    elif inlet["_shape"] is not None:
        entry["shape"] = inlet["_shape"]
    return entry


def dump_blueprint(blueprint: dict[str, Any]) -> str:
    return json.dumps(blueprint, indent=1, ensure_ascii=False) + "\n"


def _load_nodes() -> FindNode:
    """Import ComfyUI with its own extra nodes, and the pack, into this process."""
    import asyncio
    import logging

    from tools.launch.environment import COMFYUI
    from tools.launch.pack import PACK_MODULE, enable_comfyui, load_pack

    enable_comfyui(COMFYUI)
    load_pack(ROOT)
    import nodes

    logging.disable(logging.WARNING)  # some of them miss the server, which nothing here needs
    asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    own = {node.__name__: node for node in sys.modules[f"{PACK_MODULE}.nodes"].NODES}
    return {**nodes.NODE_CLASS_MAPPINGS, **own}.__getitem__


def main(names: list[str]) -> int:
    find_node = _load_nodes()
    FOLDER.mkdir(exist_ok=True)
    for name in names or BLUEPRINTS:
        file = FOLDER / f"{name}.json"
        file.write_text(dump_blueprint(build_blueprint(name, find_node)), encoding="utf-8")
        print(file.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
