"""Every template in both renderers, after a run: nothing covers anything, and all of it can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.browser.layout import contrast_of, find_disorder, find_unseen, measure, wait_until_still
from tests.browser.legibility import find_faint, set_palette
from tools.browser import RENDERERS, Studio, keep_screenshot
from tools.launch.client import load_prompt
from tools.launch.environment import ROOT
from tools.launch.workflows import API_FOLDER, ORDER
from tools.shipped.locales import read

pytestmark = pytest.mark.browser

PAGES = ((1280, 720), (1600, 900), (1920, 1080))
# Larger than the smallest page can show legibly: it shows their note and their first group.
LARGE = {
    "Klein - Everything",
    "Klein - Face Refine",
    "Klein - Compare Acceleration",
    "Klein - Reference Control",
}
_OPEN = """
async ([graph, name]) => {
  app.graph.clear();
  await app.loadGraphData(graph, true, true, name, { openSource: "template" });
}
"""
# Every node on the screen that got pictures has begun to show them.
_PICTURED = """
() => {
  const [left, top, width, height] = app.canvas.visible_area;
  return app.graph.nodes.every((node) => {
    const [x, y, across, down] = node.boundingRect;
    const seen = x < left + width && left < x + across && y < top + height && top < y + down;
    const made = app.nodeOutputs[node.id]?.images?.length;
    if (!seen || !made || node.flags.collapsed) return true;
    return document.querySelector(`[data-node-id="${node.id}"] img`) || node.imgs?.length > 0;
  });
}
"""
_OTHER_SEEDS = """
() => app.graph.nodes.flatMap((node) => node.widgets ?? [])
  .filter((widget) => widget.name === "seed")
  .forEach((widget) => { widget.value = Date.now() % 1e9; })
"""
# What the server wrote under the nodes, and reports in a Preview as Text.
_TOLD = """
() => app.graph.nodes.flatMap((node) => (node.widgets ?? [])
  .filter((widget) => widget.name.includes("text-preview") || node.type === "PreviewAny")
  .map((widget) => [node.type, String(widget.value)])
  .filter(([, text]) => text.length > 20))
"""
# The text of a note, cut off or not.
_CUT = """
() => [...document.querySelectorAll(".comfy-markdown-content, .comfy-markdown .tiptap, [class*=markdown]")]
  .filter((one) => one.clientHeight && one.scrollHeight > one.clientHeight + 4)
  .map((one) => `${one.className}: ${one.scrollHeight} in ${one.clientHeight}`)
"""


def open_file(studio: Studio, name: str) -> None:
    """In a tab of its own: what is open under a name already keeps its view in newer pages (1.58)."""
    graph = json.loads((ROOT / "workflows" / f"{name}.json").read_text("utf-8"))
    tabs = studio.page.evaluate("() => app.extensionManager.workflow.openWorkflows.length")
    studio.page.evaluate(_OPEN, [graph, f"{name}, tab {tabs}"])
    wait_until_still(studio)  # Nodes 2.0 lays its elements out


@pytest.mark.parametrize("name", ORDER)
def test_nothing_covers_anything(studio: Studio, renderer: str, name: str, artifacts: Path) -> None:
    studio.page.set_viewport_size({"width": 1600, "height": 900})
    studio.open(vue_nodes=RENDERERS[renderer])
    open_file(studio, name)
    studio.press_run()
    studio.page.wait_for_function(_PICTURED)
    wait_until_still(studio)  # pictures make their nodes grow
    slug = f"layout-{name.removeprefix('Klein - ').lower().replace(' ', '-')}-{renderer}"
    keep_screenshot(studio, artifacts / "screenshots", slug)
    # With the results on the page, in both themes and on every page: one opening, one run.
    for palette in ("light", "dark"):
        set_palette(studio, palette)
        for width, height in PAGES:
            studio.page.set_viewport_size({"width": width, "height": height})
            assert find_disorder(measure(studio)) == [], f"{palette}, {width}x{height}"
            assert studio.page.evaluate(_CUT) == [], f"{palette}, {width}x{height}"
        assert find_faint(studio) == [], palette
    for width, height in PAGES:
        studio.page.set_viewport_size({"width": width, "height": height})
        wait_until_still(studio)
        open_file(studio, name)
        seen = measure(studio)
        assert find_unseen(seen, whole=width > 1280 or name not in LARGE) == [], f"{width}x{height}"
        # What the page has opened is a graph like any other: the mark of the shipped file is off.
        assert "kleinod_template" not in studio.page.evaluate("() => app.graph.serialize().extra")
    studio.page.set_viewport_size({"width": 1600, "height": 900})


@pytest.mark.parametrize("palette", ["dark", "light"])
def test_notes_can_be_read(studio: Studio, renderer: str, palette: str, artifacts: Path) -> None:
    studio.client.post_json("/settings/Comfy.ColorPalette", palette)
    try:
        studio.open(vue_nodes=RENDERERS[renderer])
        open_file(studio, ORDER[0])
        studio.page.evaluate("() => Object.assign(app.canvas.ds, { scale: 1.2, offset: [480, 90] })")
        studio.page.evaluate("() => app.canvas.setDirty(true, true)")
        studio.page.wait_for_timeout(600)
        keep_screenshot(studio, artifacts / "screenshots", f"note-{palette}-{renderer}")
        # Of thin letters even the darkest pixel is mixed with the ground: less is seen than the colour says.
        for words, least in (("flux2-vae.safetensors", 3), ("Four pictures appear", 4.5)):
            clip = studio.page.get_by_text(words).first.bounding_box()
            assert contrast_of(studio, clip) >= least, words
        left, top = studio.page.evaluate("() => app.canvas.ds.convertOffsetToCanvas([-20, -20])")
        place = studio.page.evaluate("() => app.canvas.canvas.getBoundingClientRect().toJSON()")
        title = {"x": place["x"] + left + 6, "y": place["y"] + top + 4, "width": 300, "height": 28}
        assert contrast_of(studio, title) >= 2, "the title of a group"
    finally:
        studio.client.post_json("/settings/Comfy.ColorPalette", "dark")


def test_a_graph_keeps_the_view_its_user_gave_it(studio: Studio, renderer: str) -> None:
    """Only opening a template moves the view: not undoing, and not coming back to a saved copy."""
    studio.open(vue_nodes=RENDERERS[renderer])
    open_file(studio, ORDER[0])
    view = studio.page.evaluate(
        """async () => {
          Object.assign(app.canvas.ds, { scale: 0.9, offset: [5, 7] });
          const saved = JSON.parse(JSON.stringify(app.graph.serialize()));
          saved.extra.ds = { scale: 0.9, offset: [5, 7] };
          await app.loadGraphData(saved);
          return [app.canvas.ds.scale, ...app.canvas.ds.offset];
        }"""
    )
    assert view == [0.9, 5, 7]


def test_a_template_speaks_the_pages_language(studio: Studio, renderer: str, artifacts: Path) -> None:
    """Its note, its titles, choices, which keep their name behind, and what nodes say of a run; what is sent
    stays as it was."""
    texts = read("fr", "main")["kleinod"]
    studio.client.post_json("/settings/Comfy.Locale", "fr")
    try:
        studio.open(vue_nodes=RENDERERS[renderer])
        open_file(studio, "Klein - Accelerated")
        keep_screenshot(studio, artifacts / "screenshots", f"french-{renderer}")
        note, titles, label = studio.page.evaluate(
            """() => {
              const find = (type) => app.graph.nodes.filter((node) => node.type === type);
              const { value, options } = find("KleinodSampler")
                .flatMap((node) => node.widgets)
                .find(({ name, value }) => name === "acceleration" && value === "medium");
              return [
                find("MarkdownNote")[0].widgets[0].value,
                app.graph.groups.map((group) => group.title),
                options.getOptionLabel(value),
              ];
            }"""
        )
        sent = studio.build_prompt()
        studio.page.evaluate(_OTHER_SEEDS)  # what is still known is not run, and says nothing
        studio.press_run(button="Ex\u00e9cuter")
        # Two samplers and the report.
        studio.page.wait_for_function(f"() => ({_TOLD.strip()})().length >= 3")
        told = studio.page.evaluate(_TOLD)
        if RENDERERS[renderer]:
            studio.page.get_by_text("moyenne (medium)").first.wait_for()
    finally:
        studio.client.post_json("/settings/Comfy.Locale", "en")
    under = [text for kind, text in told if kind == "KleinodSampler"]
    assert len(under) == 2 and all("s par \u00e9tape" in text and "graine" in text for text in under), told
    assert any("\u00e9tapes sur 28 calcul" in text for text in under), told
    report = next(text for kind, text in told if kind == "PreviewAny")
    assert "calcul\u00e9es" in report and "computed" not in report
    assert note.startswith("# La m\u00eame image, plus vite\n\nAppuyez sur **Ex\u00e9cuter**")
    assert titles[0] == f"1  {texts['Model and prompt']}"
    assert label == "moyenne (medium)"
    twin = load_prompt(API_FOLDER / "Klein - Accelerated.json")
    assert {number: node["inputs"] for number, node in sent.items()} == {
        number: node["inputs"] for number, node in twin.items()
    }
