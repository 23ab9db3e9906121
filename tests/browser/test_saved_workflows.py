"""Work of earlier days on the page, in both renderers: old workflow files, pictures that carry theirs."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tools.browser import RENDERERS, Studio
from tools.launch.server import Server
from tools.launch.workflows import API_FOLDER

pytestmark = pytest.mark.browser

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SHIPPED = API_FOLDER.parent

_LOAD = "async (graph) => { await window.app.loadGraphData(graph); }"
_EDIT = """
(values) => {
  for (const node of window.app.graph.nodes)
    for (const widget of node.widgets ?? []) {
      const value = values[`${node.type}.${widget.name}`];
      if (value !== undefined) widget.value = value;
    }
}
"""
_SAVED = """
() => {
  const saved = window.app.graph.nodes.find((node) => node.type === "SaveImage");
  return window.app.nodeOutputs[saved.id]?.images?.[0];
}
"""
# What the page does with a file that is dropped onto it.
_DROP = """
async ([name, data]) => {
  window.app.graph.clear();
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  await window.app.handleFile(new File([bytes], name, { type: "image/png" }));
}
"""


@pytest.fixture(scope="module")
def page(studio: Studio, renderer: str) -> Studio:
    """Opened once in each renderer."""
    studio.open(vue_nodes=RENDERERS[renderer])
    return studio


def load(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def list_outdated() -> list[Path]:
    """Saved workflows that are no longer the shipped ones, which tests/browser/test_templates.py opens."""
    files = sorted(GOLDEN.glob("workflows-*/*.json"))
    return [file for file in files if load(file) != load(SHIPPED / file.name)]


def test_workflows_of_earlier_versions_load(page: Studio, comfy_server: Server) -> None:
    """Every value on its input; inputs that came since have their defaults."""
    files = list_outdated()
    assert len(files) >= 5
    known = comfy_server.client.get_json("/object_info")
    page.complaints.clear()
    for file in files:
        page.page.evaluate(_LOAD, load(file))
        sent, twin = page.build_prompt(), load(file.parent / "api" / file.name)
        assert set(sent) == set(twin), file
        for number, node in twin.items():
            kind = known[node["class_type"]]
            assert sent[number]["class_type"] == node["class_type"]
            inputs = sent[number]["inputs"]
            assert {name: inputs.get(name) for name in node["inputs"]} == node["inputs"], file
            specs = {**kind["input"].get("required", {}), **kind["input"].get("optional", {})}
            for name in set(inputs) - set(node["inputs"]):
                assert inputs[name] == specs[name][1]["default"], f"{file}: {name}"
    assert page.visible_dialogs() == []
    assert page.complaints_about("kleinod", "widget", "node") == []


def test_a_saved_picture_brings_its_workflow_back(page: Studio, comfy_server: Server) -> None:
    page.page.evaluate(_LOAD, load(SHIPPED / "Klein - Local or Remote.json"))
    page.page.evaluate(
        _EDIT,
        {
            "KleinodPrompt.positive": "a fox \U0001f98a on a pink background",
            "KleinodSampler.steps": 3,
            "KleinodSampler.acceleration": "low",
        },
    )
    sent = page.build_prompt()
    page.press_run()
    page.page.wait_for_function(_SAVED)
    image = page.page.evaluate(_SAVED)
    data = comfy_server.client.fetch_image(image)

    kept = Image.open(io.BytesIO(data)).text
    assert set(kept) == {"prompt", "workflow"}
    for text in (*kept.values(), data.decode("latin-1")):
        for secret in ("emulator-key", str(comfy_server.base), str(Path.home()), str(SHIPPED)):
            assert secret not in text
    inputs = json.loads(kept["prompt"])
    assert {number: node["inputs"] for number, node in inputs.items()} == {
        number: node["inputs"] for number, node in sent.items() if number in inputs
    }

    page.complaints.clear()
    page.page.evaluate(_DROP, [image["filename"], base64.b64encode(data).decode()])
    page.page.wait_for_function("window.app.graph.nodes.length > 0")
    assert page.build_prompt() == sent
    assert page.visible_dialogs() == []
    assert page.complaints_about("kleinod", "widget", "node") == []
