"""Workflows that people saved with earlier versions still mean what they meant.

`tests/golden/workflows-VERSION/` holds the shipped workflows and blueprints as that version saved them, with
their API prompts; they are never edited. A failure here: the pack no longer understands its users' work.
Give the node back what it had (inputs keep their id, order, type and meaning, options keep their names, new
inputs come last), or register a node replacement. After a release: `python -m tools.shipped.keep_workflows`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.contract.graphs import WIDGETS, inputs_of, list_known_nodes, load, read_graph, widget_names

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SAVED = sorted(GOLDEN.glob("workflows-*/*.json"))
BLUEPRINTS = sorted(GOLDEN.glob("workflows-*/subgraphs/*.json"))


def name(file: Path) -> str:
    return f"{file.relative_to(GOLDEN).parts[0].removeprefix('workflows-')} {file.stem}"


each_saved = pytest.mark.parametrize("file", SAVED, ids=name)
each_blueprint = pytest.mark.parametrize("file", BLUEPRINTS, ids=name)


@pytest.fixture(scope="module")
def known_nodes() -> dict[str, type]:
    return list_known_nodes()


def test_there_are_some() -> None:
    assert len(SAVED) >= 16 and len(BLUEPRINTS) >= 4
    assert all((file.parent / "api" / file.name).is_file() for file in SAVED)


@each_saved
def test_every_value_lands_on_the_input_it_was_saved_for(file: Path, known_nodes: dict[str, type]) -> None:
    prompt = load(file.parent / "api" / file.name)
    twin = {number: {key: node[key] for key in ("class_type", "inputs")} for number, node in prompt.items()}
    assert read_graph(load(file), known_nodes) == twin


@each_saved
def test_comfyui_accepts_the_prompt(
    file: Path, known_nodes: dict[str, type], monkeypatch: pytest.MonkeyPatch
) -> None:
    import execution

    import nodes

    for kind, node in known_nodes.items():
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, kind, node)
    prompt = load(file.parent / "api" / file.name)
    accepted, error, outputs, complaints = asyncio.run(execution.validate_prompt(file.stem, prompt, None))
    assert accepted, error
    assert complaints == {}
    ends = {number for number, node in prompt.items() if is_output(known_nodes[node["class_type"]])}
    assert set(outputs) == ends


@each_saved
def test_wires_join_the_same_slots(file: Path, known_nodes: dict[str, type]) -> None:
    graph = load(file)
    check_nodes(graph["nodes"], known_nodes)


@each_blueprint
def test_the_inside_of_a_blueprint_means_the_same(file: Path, known_nodes: dict[str, type]) -> None:
    (inside,) = load(file)["definitions"]["subgraphs"]
    check_nodes(inside["nodes"], known_nodes)
    for node in inside["nodes"]:
        specs = inputs_of(known_nodes[node["type"]])
        names = widget_names(known_nodes[node["type"]])
        for widget, value in zip(names, node["widgets_values"], strict=False):
            if widget in specs:
                check_value(specs[widget], value, f"{node['type']}.{widget}")


def is_output(kind: type) -> bool:
    return getattr(kind, "OUTPUT_NODE", False)


def check_nodes(saved: list[dict], known_nodes: dict[str, type]) -> None:
    """Inputs by name and outputs by place are still there, of the same type."""
    for node in saved:
        if node["type"] not in known_nodes:
            assert not node["type"].startswith("Kleinod"), f"{node['type']} is gone"
            continue
        kind = known_nodes[node["type"]]
        specs = inputs_of(kind)
        for entry in node["inputs"]:
            top, grown, _ = entry["name"].partition(".")
            assert top in specs, f"{node['type']} has lost {entry['name']}"
            wanted = "COMBO" if isinstance(specs[top][0], list) else specs[top][0]
            if not grown and wanted not in ("COMFY_MATCHTYPE_V3", "*"):
                assert entry["type"] == wanted
        types = kind.RETURN_TYPES
        for place, entry in enumerate(node["outputs"]):
            assert entry["type"] == types[place] or "MATCHTYPE" in str(types[place])


def check_value(spec: tuple, value: object, place: str) -> None:
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if isinstance(kind, list) or kind == "COMBO":
        assert value in (kind if isinstance(kind, list) else options["options"]), place
    elif kind in ("INT", "FLOAT"):
        assert options["min"] <= value <= options["max"], place
    else:
        assert kind in WIDGETS and isinstance(value, {"STRING": str, "BOOLEAN": bool}[kind]), place
