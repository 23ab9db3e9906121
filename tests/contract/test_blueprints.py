"""The blueprints of the node library: what they hold exists, what they show connects."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from kleinod.nodes import NODES

from tools.shipped.blueprints import BLUEPRINTS, FOLDER, build_blueprint, dump_blueprint

ENTRANCE, EXIT = -10, -20
FILES = [FOLDER / f"{name}.json" for name in BLUEPRINTS]

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


@pytest.fixture(scope="module")
def known_nodes() -> dict[str, type]:
    """Every node of this ComfyUI by its type, with the pack's own."""
    import nodes

    if "ComfySwitchNode" not in nodes.NODE_CLASS_MAPPINGS:
        asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    return {**nodes.NODE_CLASS_MAPPINGS, **{node.__name__: node for node in NODES}}


def load(file: Path) -> tuple[dict, dict]:
    """The node on the outside and the definition of its inside."""
    graph = json.loads(file.read_text(encoding="utf-8"))
    (outside,) = graph["nodes"]
    (inside,) = graph["definitions"]["subgraphs"]
    return outside, inside


def list_inputs(kind: type) -> dict[str, str]:
    """Every input that a link can reach, with its type; sockets that grow under their full names."""
    found = {}
    types = kind.INPUT_TYPES()
    for name, spec in {**types.get("required", {}), **types.get("optional", {})}.items():
        if spec[0] == "COMFY_AUTOGROW_V3":
            template = spec[1]["template"]
            (own,) = [own for group in template["input"].values() for own in group.values()]
            found |= {f"{name}.{slot}": own[0] for slot in template["names"]}
        else:
            found[name] = "COMBO" if isinstance(spec[0], list) else spec[0]
    return found


def test_every_blueprint_is_shipped_and_nothing_else() -> None:
    assert {file.stem for file in FOLDER.iterdir()} == set(BLUEPRINTS)
    assert all(file.suffix == ".json" for file in FOLDER.iterdir())
    assert all(name.startswith("Klein - ") for name in BLUEPRINTS)


def test_no_id_comes_twice() -> None:
    """In one of them, or in two: the page numbers a graph and all that is dropped into it as one."""
    found: dict[str, list[int]] = {"nodes": [1], "links": [], "groups": []}
    for file in FILES:
        outside, inside = load(file)
        assert outside["id"] == 1  # the page gives it another one, whatever it is
        for kind, numbers in found.items():
            numbers += [entry["id"] for entry in inside[kind]]
    assert {kind for kind, numbers in found.items() if len(set(numbers)) != len(numbers)} == set()
    assert min(found["nodes"][1:] + found["links"] + found["groups"]) >= 1000  # graphs of users count from 1


@each_file
def test_it_is_what_the_maker_makes_today(file: Path, known_nodes: dict[str, type]) -> None:
    """A workflow or a node changed since: `python -m tools.shipped.blueprints`."""
    made = dump_blueprint(build_blueprint(file.stem, known_nodes.__getitem__))
    assert file.read_text(encoding="utf-8") == made


@each_file
def test_the_page_can_load_it(file: Path) -> None:
    outside, inside = load(file)
    assert outside["type"] == inside["id"]
    assert outside["title"] == inside["name"] == file.stem
    assert [slot["name"] for slot in outside["inputs"]] == [slot["name"] for slot in inside["inputs"]]
    assert [slot["type"] for slot in outside["inputs"]] == [slot["type"] for slot in inside["inputs"]]
    assert [slot["name"] for slot in outside["outputs"]] == [slot["name"] for slot in inside["outputs"]]
    assert inside["outputs"][0]["name"] == "image" and inside["outputs"][0]["type"] == "IMAGE"
    assert len(inside["description"]) > 80 and inside["category"] == "Kleinod"
    numbers = [link["id"] for link in inside["links"]]
    assert len(set(numbers)) == len(numbers) and max(numbers) == inside["state"]["lastLinkId"]
    assert max(node["id"] for node in inside["nodes"]) == inside["state"]["lastNodeId"]
    assert max(group["id"] for group in inside["groups"]) == inside["state"]["lastGroupId"]


@each_file
def test_inner_nodes_exist_with_their_inputs_and_outputs(file: Path, known_nodes: dict[str, type]) -> None:
    for node in load(file)[1]["nodes"]:
        kind = known_nodes[node["type"]]
        inputs = list_inputs(kind)
        assert {entry["name"] for entry in node["inputs"]} <= set(inputs)
        names = [entry["name"] for entry in node["outputs"]]
        assert names == list(getattr(kind, "RETURN_NAMES", None) or kind.RETURN_TYPES)
        widgets = [entry["name"] for entry in node["inputs"] if "widget" in entry]
        types = kind.INPUT_TYPES()
        specs = {**types.get("required", {}), **types.get("optional", {})}
        options = [specs[name][1] for name in widgets if len(specs[name]) > 1]
        seeds = [option for option in options if option.get("control_after_generate")]
        assert len(node["widgets_values"]) == len(widgets) + len(seeds)
        # What must be linked is, also from the outside.
        required = [name for name in types["required"] if specs[name][0] != "COMFY_AUTOGROW_V3"]
        linked = {entry["name"] for entry in node["inputs"] if entry["link"] is not None}
        if node["type"] != "ComfySwitchNode":
            assert set(required) <= linked | set(widgets)


@each_file
def test_inner_links_join_slots_of_one_type(file: Path, known_nodes: dict[str, type]) -> None:
    inside = load(file)[1]
    nodes = {node["id"]: node for node in inside["nodes"]}
    used = set()
    for link in inside["links"]:
        number, source, target = link["id"], link["origin_id"], link["target_id"]
        if source == ENTRANCE:
            start = inside["inputs"][link["origin_slot"]]
            assert number in start["linkIds"]
        else:
            start = nodes[source]["outputs"][link["origin_slot"]]
            assert number in start["links"]
        if target == EXIT:
            end = inside["outputs"][link["target_slot"]]
            assert number in end["linkIds"]
        else:
            end = nodes[target]["inputs"][link["target_slot"]]
            assert end["link"] == number
            wanted = list_inputs(known_nodes[nodes[target]["type"]])[end["name"]]
            assert wanted in (link["type"], "COMFY_MATCHTYPE_V3")
        assert start["type"] in (link["type"], "*") and end["type"] == link["type"]
        used.add(number)
    for node in inside["nodes"]:
        assert {entry["link"] for entry in node["inputs"]} - {None} <= used
        assert {number for entry in node["outputs"] for number in entry["links"]} <= used


@each_file
def test_everything_on_the_outside_leads_inside(file: Path) -> None:
    outside, inside = load(file)
    nodes = {node["id"]: node for node in inside["nodes"]}
    links = {link["id"]: link for link in inside["links"]}
    for shown, slot in zip(outside["inputs"], inside["inputs"], strict=True):
        ends = [links[number] for number in slot["linkIds"]]
        inner = [nodes[link["target_id"]]["inputs"][link["target_slot"]] for link in ends]
        assert inner and len({"widget" in entry for entry in inner}) == 1
        assert ("widget" in shown) == ("widget" in inner[0])
    for slot in inside["outputs"]:
        assert len(slot["linkIds"]) == 1
    names = [slot["name"] for slot in inside["inputs"]]
    assert {"prompt", "seed"} <= set(names)
    if "KleinodLoader" in {node["type"] for node in inside["nodes"]}:
        assert {"steps", "diffusion_model"} <= set(names)
    assert len(set(names)) == len(names)


@each_file
def test_the_inside_is_in_order(file: Path) -> None:
    """No two nodes overlap, every node lies in a group, and both ends lie beside them."""
    inside = load(file)[1]
    boxes = [(*node["pos"], *node["size"]) for node in inside["nodes"]]
    for index, (x, y, width, height) in enumerate(boxes):
        for left, top, wide, high in boxes[index + 1 :]:
            assert x + width <= left or left + wide <= x or y + height <= top - 30 or top + high <= y - 30
    left, right = min(box[0] for box in boxes), max(box[0] + box[2] for box in boxes)
    start, end = inside["inputNode"]["bounding"], inside["outputNode"]["bounding"]
    assert start[0] + start[2] < left and end[0] > right


@each_file
def test_it_starts_without_files(file: Path) -> None:
    loaders = [node for node in load(file)[1]["nodes"] if node["type"] == "KleinodLoader"]
    remote = any(node["type"] in ("KleinodRunware", "KleinodBFL") for node in load(file)[1]["nodes"])
    assert {node["widgets_values"][0] for node in loaders} <= {"klein-nano (built in)"}
    assert loaders or remote
