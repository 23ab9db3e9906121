"""The shipped workflows: complete, honest about their models, and the same in both of their forms."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.contract.graphs import PAGE_ONLY, list_known_nodes, load, read_graph, widget_names
from tools.launch.workflows import API_FOLDER, ORDER

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"
UI_FILES = [WORKFLOWS / f"{name}.json" for name in ORDER]

each_file = pytest.mark.parametrize("file", UI_FILES, ids=lambda file: file.stem)


@pytest.fixture(scope="module")
def known_nodes() -> dict[str, type]:
    """Every node of this ComfyUI by its type, with the pack's own."""
    return list_known_nodes()


def test_every_workflow_has_both_forms_and_is_run() -> None:
    assert {file.stem for file in WORKFLOWS.glob("*.json")} == set(ORDER)
    assert {file.stem for file in API_FOLDER.glob("*.json")} == set(ORDER)
    assert all(name.startswith("Klein - ") for name in ORDER)


def test_nothing_else_is_listed_as_a_template() -> None:
    """Every flat JSON becomes a template; API prompts therefore live one folder down."""
    for file in WORKFLOWS.glob("*.json"):
        assert {"nodes", "links", "version"} <= set(load(file)), f"{file.name} is not a saved workflow"


@each_file
def test_thumbnail(file: Path) -> None:
    with Image.open(file.with_suffix(".jpg")) as picture:
        assert picture.format == "JPEG"
        assert 256 <= min(picture.size) and max(picture.size) <= 768
    assert file.with_suffix(".jpg").stat().st_size < 100_000


@each_file
def test_only_known_nodes(file: Path, known_nodes: dict[str, type]) -> None:
    kinds = {node["type"] for node in load(file)["nodes"]}
    assert kinds - PAGE_ONLY <= set(known_nodes)
    assert any(kind.startswith("Kleinod") for kind in kinds)


@each_file
def test_widget_values_fit_the_schema(file: Path, known_nodes: dict[str, type]) -> None:
    for node in load(file)["nodes"]:
        if node["type"] not in PAGE_ONLY:
            names = widget_names(known_nodes[node["type"]])
            assert len(node.get("widgets_values", [])) == len(names), f"{node['type']} has widgets {names}"


@each_file
def test_links_join_outputs_to_inputs(file: Path) -> None:
    graph = load(file)
    nodes = {node["id"]: node for node in graph["nodes"]}
    for number, source, slot, target, place, kind in graph["links"]:
        assert number in nodes[source]["outputs"][slot]["links"]
        assert nodes[target]["inputs"][place]["link"] == number
        assert kind == nodes[source]["outputs"][slot]["type"]


@each_file
def test_both_forms_say_the_same(file: Path, known_nodes: dict[str, type]) -> None:
    """Values and wires of the saved graph are those of the API twin, node by node."""
    prompt = load(API_FOLDER / file.name)
    twin = {
        number: {"class_type": node["class_type"], "inputs": node["inputs"]}
        for number, node in prompt.items()
    }
    assert read_graph(load(file), known_nodes) == twin


@each_file
def test_both_forms_name_their_nodes_alike(file: Path) -> None:
    """Progress by API shows the titles that the page shows."""
    titles = {
        str(node["id"]): node.get("title") for node in load(file)["nodes"] if node["type"] not in PAGE_ONLY
    }
    twin = {number: node["_meta"]["title"] for number, node in load(API_FOLDER / file.name).items()}
    assert {number: title for number, title in titles.items() if title} == {
        number: title for number, title in twin.items() if titles[number]
    }


@each_file
def test_nothing_overlaps(file: Path) -> None:
    boxes = [_box(node) for node in load(file)["nodes"]]
    for index, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[index + 1 :]:
            apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
            assert apart, f"two nodes overlap at {left}, {top}"


@each_file
def test_it_is_legible_when_it_opens(file: Path) -> None:
    """ComfyUI shows a template whole, on three quarters of the page, and its classic renderer draws no text
    smaller than 8 pixels, which is 14 units.
    """
    lefts, tops, rights, bottoms = zip(*(_box(node) for node in load(file)["nodes"]), strict=True)
    width, height = max(rights) - min(lefts) + 20, max(bottoms) - min(tops) + 20
    assert 0.75 * min(1920 / width, 960 / height) > 8 / 14


def test_local_or_remote_is_one_request() -> None:
    """What both nodes take comes from one place; what only one of them has, says the same."""
    prompt = load(API_FOLDER / "Klein - Local or Remote.json")
    nodes = {node["class_type"]: node["inputs"] for node in prompt.values()}
    local, remote = nodes["KleinodSampler"], nodes["KleinodRunware"]
    words = prompt[local["positive"][0]]["inputs"]
    assert remote["positive_prompt"] == words["positive"] and remote["negative_prompt"] == words["negative"]
    for own, other in (
        ("width", "width"), ("height", "height"), ("steps", "steps"), ("guidance", "cfg_scale"),
        ("seed", "seed"), ("results", "number_results"),
    ):  # fmt: skip
        assert local[own] == remote[other] and isinstance(local[own], list), own
        assert prompt[local[own][0]]["class_type"].startswith("Primitive")
    assert remote["acceleration_level"] == local["acceleration"] == "none"
    assert remote["scheduler"] == local["scheduler"]


def _box(node: dict) -> tuple[float, float, float, float]:
    """Left, top (of the title bar), right and bottom; of a collapsed node only the title bar is left."""
    left, top = node["pos"]
    width, height = node["size"]
    return left, top - 30, left + width, top + (0 if node["flags"].get("collapsed") else height)


@each_file
def test_loaders_offer_the_real_weights(file: Path) -> None:
    for node in load(file)["nodes"]:
        if node["type"] == "KleinodLoader":
            models = node["properties"]["models"]
            assert {model["directory"] for model in models} == {"diffusion_models", "text_encoders", "vae"}
            for model in models:
                assert set(model) == {"name", "url", "directory"}
                assert model["url"].startswith("https://huggingface.co/")
                assert model["url"].endswith("/" + model["name"])


@each_file
def test_starts_without_files(file: Path) -> None:
    """Run works at once: the built-in model, and no picture that a new user does not have."""
    prompt = load(API_FOLDER / file.name)
    loaders = [node for node in prompt.values() if node["class_type"] == "KleinodLoader"]
    assert all(node["inputs"]["diffusion_model"] == "klein-nano (built in)" for node in loaders)
    assert not any(node["class_type"] == "LoadImage" for node in prompt.values())


@each_file
def test_a_note_explains(file: Path) -> None:
    notes = [node["widgets_values"][0] for node in load(file)["nodes"] if node["type"] == "MarkdownNote"]
    assert notes and all(len(note) > 200 for note in notes)


@each_file
def test_rows_name_the_very_files_that_come_with_the_pack(file: Path) -> None:
    """Else the node says that it is another file than when the workflow was saved."""
    built_in = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (ROOT / "nodes" / "loras" / "built_in").glob("*.safetensors")
    }
    rows = re.findall(r"(klein-nano \w+\.safetensors)[^\n\\]*?sha256=(\w{64})", file.read_text("utf-8"))
    assert [name for name, digest in rows if built_in[name] != digest] == []
