"""Klein Face Settings on the page, in both renderers: presets show their numbers, a changed one is custom."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.browser import RENDERERS, Studio, keep_screenshot

pytestmark = pytest.mark.browser

_ADD = """
() => {
  const node = window.LiteGraph.createNode("KleinodFaceSettings");
  node.pos = [200, 100];
  window.app.graph.add(node);
}
"""
_SET = """
([name, value]) => {
  const node = window.app.graph.nodes.find((node) => node.type === "KleinodFaceSettings");
  const widget = node.widgets.find((widget) => widget.name === name);
  widget.value = value;
  widget.callback?.(value, window.app.canvas, node);
}
"""
_READ = """
() => {
  const node = window.app.graph.nodes.find((node) => node.type === "KleinodFaceSettings");
  const read = (name) => node.widgets.find((widget) => widget.name === name).value;
  return ["preset", "confidence", "strength", "steps", "guidance", "mask_unit", "inpaint_size"].map(read);
}
"""
_RELOAD = """
async () => {
  const saved = JSON.parse(JSON.stringify(window.app.graph.serialize()));
  window.app.graph.clear();
  await window.app.loadGraphData(saved);
}
"""
PERCENT = "percent of the face"


def test_presets_fill_the_widgets_and_a_change_makes_them_custom(
    studio: Studio, renderer: str, artifacts: Path
) -> None:
    page = studio.page
    studio.complaints.clear()
    studio.open(vue_nodes=RENDERERS[renderer])
    page.evaluate("() => window.app.graph.clear()")
    page.evaluate(_ADD)
    assert page.evaluate(_READ) == ["Klein", 0.35, 0.55, 20, 4, PERCENT, 1024]
    page.evaluate(_SET, ["preset", "API defaults"])
    assert page.evaluate(_READ) == ["API defaults", 0.9, 0.3, 20, 8, "pixels", 1024]
    page.evaluate(_SET, ["inpaint_size", 512])
    assert page.evaluate(_READ)[0] == "API defaults", "sizes belong to no preset"
    page.evaluate(_SET, ["preset", "Klein distilled"])
    page.evaluate(_SET, ["strength", 0.8])
    changed = ["custom", 0.35, 0.8, 4, 1, PERCENT, 512]
    assert page.evaluate(_READ) == changed
    keep_screenshot(studio, artifacts / "screenshots", f"face-settings-{renderer}")
    page.evaluate(_RELOAD)
    assert page.evaluate(_READ) == changed, "a saved graph keeps its numbers"
    assert studio.complaints_about("kleinod") == []
