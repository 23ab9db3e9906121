"""The help panel of every node, as its info button opens it: the page is there, its pictures load and fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.browser import RENDERERS, Studio, keep_screenshot
from tools.shipped.locales import LANGUAGES, read
from tools.shipped.pictures import DOCS

pytestmark = pytest.mark.browser

NODES = sorted(page.stem for page in DOCS.glob("*.md"))
SOME = ("KleinodSampler", "KleinodBFL")  # one with sheets, one with a photograph

_SELECT = """
(kind) => {
  const { app, LiteGraph } = window;
  for (const node of [...app.graph.nodes]) app.graph.remove(node);
  const node = LiteGraph.createNode(kind);
  node.pos = [200, 150];
  app.graph.add(node);
  app.canvas.selectNode(node);
}
"""
# Heading and pictures of the page shown, once all of it is there.
_READ = """
(heading) => {
  const panel = document.querySelector(".node-help-content");
  const images = [...(panel?.querySelectorAll("img") ?? [])];
  if (panel?.querySelector("h1")?.textContent !== heading) return null;
  if (!images.every((image) => image.complete)) return null;
  const width = panel.getBoundingClientRect().width;
  return images.map((image) => ({
    name: decodeURIComponent(image.src.split("/").pop()),
    loaded: image.naturalWidth > 0,
    fits: image.getBoundingClientRect().width <= width + 1,
  }));
}
"""
# Blocks that would have to be scrolled sideways; examples of code may.
_SCROLLS = """
() => [...document.querySelectorAll(".node-help-content :not(pre, pre *)")]
  .filter((one) => getComputedStyle(one).display !== "inline" && one.scrollWidth > one.clientWidth + 1)
  .length
"""


# Title, inputs (sockets and widgets) and outputs of the one node, as they are written on it.
_NAMES = """
() => {
  const [node] = window.app.graph.nodes;
  const write = (one) => one.label ?? one.localized_name ?? one.name;
  const inputs = [...node.inputs, ...node.widgets.filter((one) => one.serialize !== false)];
  return [node.title, Object.fromEntries(inputs.map((one) => [one.name, write(one)])),
    node.outputs.map(write)];
}
"""


def open_help(studio: Studio, kind: str) -> list[dict]:
    studio.page.evaluate(_SELECT, kind)
    panel = studio.page.locator(".node-help-content")
    if not panel.is_visible():
        studio.page.get_by_test_id("info-button").first.click()
    page = (DOCS / f"{kind}.md").read_text(encoding="utf-8")
    heading = page.splitlines()[0].removeprefix("# ")
    return studio.page.wait_for_function(_READ, arg=heading).json_value()


def complaints(studio: Studio) -> list[str]:
    """ComfyUI first asks for a page in the user's language; the browser notes each one that is missing."""
    pages = [f"docs/{kind}/{language}.md" for kind in NODES for language in ("en", *LANGUAGES)]
    heard = studio.complaints_about("kleinod", "docs/")
    return [text for text in heard if not any(page in text for page in pages)]


def test_every_page_opens_with_its_pictures(studio: Studio, renderer: str, artifacts: Path) -> None:
    studio.complaints.clear()
    studio.open(vue_nodes=RENDERERS[renderer])
    for kind in NODES if RENDERERS[renderer] else SOME:
        pictures = open_help(studio, kind)
        page = (DOCS / f"{kind}.md").read_text(encoding="utf-8")
        assert [picture["name"] for picture in pictures if f"]({picture['name']})" in page], kind
        assert all(picture["loaded"] and picture["fits"] for picture in pictures), (kind, pictures)
        assert studio.page.evaluate(_SCROLLS) == 0, f"{kind}: something is wider than the panel"
        if kind in SOME:
            keep_screenshot(studio, artifacts / "screenshots", f"help-{renderer}-{kind}")
    assert studio.visible_dialogs() == []
    assert complaints(studio) == []


def test_another_language_has_translated_nodes_and_the_english_page(studio: Studio, artifacts: Path) -> None:
    kind, texts = "KleinodSampler", read("fr", "nodeDefs")["KleinodSampler"]
    studio.complaints.clear()
    studio.client.post_json("/settings/Comfy.Locale", "fr")
    try:
        studio.open(vue_nodes=True)
        pictures = open_help(studio, kind)
        keep_screenshot(studio, artifacts / "screenshots", "help-french")
        title, inputs, outputs = studio.page.evaluate(_NAMES)
    finally:
        studio.client.post_json("/settings/Comfy.Locale", "en")
    assert pictures and all(picture["loaded"] for picture in pictures)
    assert title == texts["display_name"]
    assert {name: inputs[name] for name in texts["inputs"]} == {
        name: entry["name"] for name, entry in texts["inputs"].items()
    }
    assert outputs == [entry["name"] for entry in texts["outputs"].values()]
    assert studio.visible_dialogs() == []
    assert complaints(studio) == []
