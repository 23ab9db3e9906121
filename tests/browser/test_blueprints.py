"""Blueprints as a user meets them, in both renderers: found in the node library, dropped, connected, run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.browser import RENDERERS, Studio, keep_screenshot
from tools.shipped.blueprints import BLUEPRINTS, id_inside

pytestmark = pytest.mark.browser

TEXT, EDIT = "Klein - Text to Image", "Klein - Edit"
FACES, SWITCH = "Klein - Face Refine", "Klein - Local or Remote"

_CONNECT = """
([from, output, to, input]) => {
  const find = (title) => window.app.graph.nodes.find((node) => node.title === title);
  const slot = (slots, name) => slots.findIndex((entry) => entry.name === name);
  find(from).connect(slot(find(from).outputs, output), find(to), slot(find(to).inputs, input));
}
"""
_ADD_SAVE = """
([x, y]) => {
  const node = window.LiteGraph.createNode("SaveImage");
  node.pos = [x, y];
  node.size = [420, 460];
  window.app.graph.add(node);
}
"""
_PLACE = """
([title, x, y]) => {
  window.app.graph.nodes.find((node) => node.title === title).pos = [x, y];
  window.app.canvas.setDirty(true, true);
}
"""
_TYPE = """
([title, name, value]) => {
  const node = window.app.graph.nodes.find((node) => node.title === title);
  node.widgets.find((widget) => widget.name === name).value = value;
}
"""
# The node library's field, as the pages of ComfyUI 0.27 to 0.30 and the newest one word it.
_SEARCH = re.compile(r"^Search( Nodes)?\.\.\.$")
# The page got the picture that Save Image kept, and can show it.
_SAVED = """
() => {
  const saved = window.app.graph.nodes.find((node) => node.type === "SaveImage");
  return window.app.nodeOutputs[saved.id]?.images?.length === 1;
}
"""
# What a user sees on the node from outside: each widget with the choices it offers.
_LIST_WIDGETS = """
(title) => {
  const node = window.app.graph.nodes.find((entry) => entry.title === title);
  return node.widgets.map((widget) => {
    const choices = widget.options?.values;
    return [widget.name, widget.value, typeof choices === "function" ? choices() : (choices ?? null)];
  });
}
"""
_RELOAD = """
async () => {
  const saved = JSON.parse(JSON.stringify(window.app.graph.serialize()));
  window.app.graph.clear();
  await window.app.loadGraphData(saved);
}
"""
_START_ANEW = """
() => {
  window.app.canvas.setGraph(window.app.rootGraph);
  window.app.rootGraph.clear();
  Object.assign(window.app.canvas.ds, { scale: 0.9, offset: [0, 0] });
}
"""
_LOOK_INSIDE = """
() => {
  const [host] = window.app.graph.nodes;
  window.app.canvas.openSubgraph(host.subgraph, host);
}
"""


@pytest.fixture(scope="module")
def studio(studio: Studio, renderer: str) -> Studio:
    """The page, opened once in each renderer."""
    studio.open(vue_nodes=RENDERERS[renderer])
    return studio


@pytest.fixture(autouse=True)
def empty_graph(studio: Studio) -> Iterator[None]:
    """Before each test, on the page that is open; after it, nothing may stand in a user's way."""
    studio.page.evaluate(_START_ANEW)
    studio.complaints.clear()
    yield
    assert studio.visible_dialogs() == []
    assert studio.complaints_about("kleinod", "blueprint", "subgraph") == []


def drop(studio: Studio, name: str, x: int, y: int) -> None:
    """Open the node library, search, click the hit, click the canvas; then lay the node at (x, y)."""
    page = studio.page
    search = page.get_by_placeholder(_SEARCH).first
    if not search.is_visible():
        page.keyboard.press("n")
    search.fill(name)
    page.get_by_text(name, exact=True).first.click()
    page.mouse.move(900, 840)
    page.mouse.click(900, 840)
    page.wait_for_function("(name) => window.app.graph.nodes.some((node) => node.title === name)", arg=name)
    page.evaluate(_PLACE, [name, x, y])


def inputs_by_kind(prompt: dict) -> dict[str, dict]:
    """Inputs of each kind of node; here no kind comes twice."""
    found = {node["class_type"]: node["inputs"] for node in prompt.values()}
    assert len(found) == len(prompt)
    return found


def test_text_to_image_is_dropped_and_runs(studio: Studio, renderer: str, artifacts: Path) -> None:
    shots = artifacts / "screenshots"
    drop(studio, TEXT, 400, 60)
    keep_screenshot(studio, shots, f"blueprint-{renderer}-1-dropped")
    studio.page.keyboard.press("n")  # closes the library
    studio.page.evaluate(_TYPE, [TEXT, "prompt", "a panda on a pink background"])
    studio.page.evaluate(_TYPE, [TEXT, "steps", 8])
    studio.page.evaluate(_ADD_SAVE, [900, 60])
    studio.page.evaluate(_CONNECT, [TEXT, "image", "Save Image", "images"])
    sent = inputs_by_kind(studio.build_prompt())
    assert sent["KleinodPrompt"]["positive"] == "a panda on a pink background"
    assert sent["KleinodSampler"]["steps"] == 8 and sent["KleinodSampler"]["results"] == 1
    studio.press_run()
    studio.page.wait_for_function(_SAVED)
    studio.page.wait_for_timeout(1000)
    keep_screenshot(studio, shots, f"blueprint-{renderer}-2-done")
    # The seed on the outside moves on, as on the sampler itself.
    assert inputs_by_kind(studio.build_prompt())["KleinodSampler"]["seed"] != sent["KleinodSampler"]["seed"]
    studio.page.evaluate(_LOOK_INSIDE)
    studio.page.wait_for_timeout(700)
    keep_screenshot(studio, shots, f"blueprint-{renderer}-3-inside")


def test_the_others_run_as_one_chain(studio: Studio, renderer: str, artifacts: Path) -> None:
    """Local or remote paints, edit changes it, face refine finishes it."""
    drop(studio, SWITCH, 320, 60)
    drop(studio, EDIT, 780, 60)
    drop(studio, FACES, 1240, 60)
    studio.page.evaluate(_ADD_SAVE, [1700, 60])
    studio.page.evaluate(_CONNECT, [SWITCH, "image", EDIT, "image"])
    studio.page.evaluate(_CONNECT, [EDIT, "image", FACES, "image"])
    studio.page.evaluate(_CONNECT, [FACES, "image", "Save Image", "images"])
    for name in (SWITCH, EDIT, FACES):
        studio.page.evaluate(_TYPE, [name, "steps", 6])
    studio.page.evaluate(_TYPE, [SWITCH, "guidance", 3])
    prompt = studio.build_prompt()
    kinds = [node["class_type"] for node in prompt.values()]
    assert kinds.count("KleinodLoader") == 3 and kinds.count("KleinodSampler") == 2
    (remote,) = [node["inputs"] for node in prompt.values() if node["class_type"] == "KleinodRunware"]
    assert remote["positive_prompt"] == "a panda on a pink background"
    assert (remote["steps"], remote["cfg_scale"], remote["width"]) == (6, 3, 128)
    (references,) = [node["inputs"] for node in prompt.values() if node["class_type"] == "KleinodReferences"]
    assert "images.image_1" in references and "images.image_2" not in references
    studio.page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    studio.press_run()
    studio.page.wait_for_function(_SAVED)
    studio.page.wait_for_timeout(1000)
    keep_screenshot(studio, artifacts / "screenshots", f"blueprint-chain-{renderer}")


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_every_value_on_the_outside_reaches_the_inside(
    studio: Studio, renderer: str, name: str, artifacts: Path
) -> None:
    """Also the choices, which pages of this generation could lose in a subgraph; and after save and load."""
    drop(studio, name, 400, 60)
    studio.page.keyboard.press("n")
    shown = studio.page.evaluate(_LIST_WIDGETS, name)
    offered = {widget: choices for widget, _, choices in shown if choices}
    named = {inlet.name for inlet in BLUEPRINTS[name].inlets}
    assert {"diffusion_model"} & named <= set(offered)
    if "acceleration" in {widget for widget, *_ in shown}:
        assert offered["acceleration"] == ["none", "low", "medium", "high", "highest"]
    wanted = {widget: choose_another(widget, value, choices) for widget, value, choices in shown}
    wanted.pop("control_after_generate", None)
    for widget, value in wanted.items():
        studio.page.evaluate(_TYPE, [name, widget, value])
    assert read_inlets(studio, name) == wanted
    studio.page.evaluate(_RELOAD)
    assert read_inlets(studio, name) == wanted
    keep_screenshot(studio, artifacts / "screenshots", f"blueprint-values-{len(wanted)}-{renderer}")


def choose_another(widget: str, value: object, choices: list | None) -> object:
    if choices:
        return next((choice for choice in reversed(choices) if choice != value), value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"{widget}, changed"
    steps = {"width": 16, "height": 16, "inpaint_size": 16, "strength": -0.25}
    return value + steps.get(widget, 1)


def read_inlets(studio: Studio, name: str) -> dict[str, object]:
    """What the prompt holds for each input of the outside that has a widget; the same wherever it leads."""
    prompt = {
        int(number.rpartition(":")[2]): node["inputs"] for number, node in studio.build_prompt().items()
    }
    found = {}
    for inlet in BLUEPRINTS[name].inlets:
        places = [
            (prompt[id_inside(name, int(number))], inner)
            for number, inner in (target.split(".", 1) for target in inlet.targets)
        ]
        values = [inputs[inner] for inputs, inner in places if inner in inputs]
        if values:
            assert len(values) == len(places) and all(value == values[0] for value in values)
            found[inlet.name] = values[0]
    return found
