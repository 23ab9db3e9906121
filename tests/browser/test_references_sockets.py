"""Klein References on the page, in both renderers: sockets that grow and shrink, saving, the sheet."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from tools.browser import RENDERERS, Studio, keep_screenshot

pytestmark = pytest.mark.browser

_BUILD = """
(shade) => {
  const add = (type, x, y) => {
    const node = window.LiteGraph.createNode(type);
    node.pos = [x, y];
    window.app.graph.add(node);
    return node;
  };
  window.kleinodRefs = add("KleinodReferences", 700, 60);
  window.kleinodPictures = [0, 1, 2].map((index) => {
    const node = add("EmptyImage", 100, 60 + 260 * index);
    const size = [["width", 160 + 64 * index], ["height", 128], ["color", shade + 9000 * index]];
    for (const [name, value] of size)
      node.widgets.find((widget) => widget.name === name).value = value;
    return node;
  });
  const mask = add("SolidMask", 100, 860);
  window.kleinodMask = mask;
}
"""
# The page adds a socket a few frames after the last one was taken.
_CONNECT = """
async ([index, socket]) => {
  const node = window.kleinodRefs;
  while (!node.inputs.some((input) => input.name === socket)) await new Promise(requestAnimationFrame);
  window.kleinodPictures[index].connect(0, node, node.inputs.findIndex((input) => input.name === socket));
}
"""
_SOCKETS = """
(prefix) => window.app.graph.nodes.find((node) => node.type === "KleinodReferences")
  .inputs.filter((input) => input.name.startsWith(prefix))
  .map((input) => input.name.split(".")[1] + (input.link == null ? "" : "*"))
"""
_SHEET_CLASSIC = """
() => window.kleinodRefs.imgs?.length === 1 && window.kleinodRefs.imgs[0].naturalWidth > 600
"""
_SHEET_NODES2 = """
() => [...document.querySelectorAll(`[data-node-id="${window.kleinodRefs.id}"] img`)]
  .some((image) => image.naturalWidth > 600 && image.getBoundingClientRect().width > 40)
"""


def wait_for_pictures(page: Page, sockets: list[str]) -> None:
    page.wait_for_function(
        f"(sockets) => String(({_SOCKETS.strip()})('images.')) === sockets", arg=",".join(sockets)
    )


def test_sockets_grow_shrink_and_survive(studio: Studio, renderer: str, artifacts: Path) -> None:
    page = studio.page
    studio.complaints.clear()
    studio.open(vue_nodes=RENDERERS[renderer])
    page.evaluate(_BUILD, 40000)
    wait_for_pictures(page, ["image_1", "image_2"])
    assert page.evaluate(_SOCKETS, "masks.") == ["mask_1", "mask_2", "mask_3", "mask_4"]
    for index in range(3):
        page.evaluate(_CONNECT, [index, f"images.image_{index + 1}"])
    grown = ["image_1*", "image_2*", "image_3*", "image_4"]
    wait_for_pictures(page, grown)
    page.evaluate(
        """() => window.kleinodMask.connect(0, window.kleinodRefs,
          window.kleinodRefs.inputs.findIndex((input) => input.name === "masks.mask_3"))"""
    )
    keep_screenshot(studio, artifacts / "screenshots", f"references-sockets-{renderer}")

    page.evaluate(
        """async () => {
          const saved = JSON.parse(JSON.stringify(window.app.graph.serialize()));
          window.app.graph.clear();
          await window.app.loadGraphData(saved);
          const nodes = window.app.graph.nodes;
          window.kleinodRefs = nodes.find((node) => node.type === "KleinodReferences");
          window.kleinodPictures = nodes.filter((node) => node.type === "EmptyImage");
        }"""
    )
    wait_for_pictures(page, grown)
    assert page.evaluate(_SOCKETS, "masks.") == ["mask_1", "mask_2", "mask_3*", "mask_4"]
    (inputs,) = [
        node["inputs"] for node in studio.build_prompt().values() if node["class_type"] == "KleinodReferences"
    ]
    linked = {name for name, value in inputs.items() if isinstance(value, list)}
    assert linked == {"images.image_1", "images.image_2", "images.image_3", "masks.mask_3"}

    # Taking image 2 away moves image 3 up: the prompt's numbers have no holes.
    page.evaluate(
        """() => window.kleinodRefs.disconnectInput(
          window.kleinodRefs.inputs.findIndex((input) => input.name === "images.image_2"))"""
    )
    wait_for_pictures(page, ["image_1*", "image_2*", "image_3"])
    assert studio.complaints_about("kleinod") == []


def test_the_sheet_stands_on_the_node(studio: Studio, renderer: str, artifacts: Path) -> None:
    page = studio.page
    studio.open(vue_nodes=RENDERERS[renderer])
    # ComfyUI tells a page nothing of nodes it need not run again: each renderer gets pictures of its own.
    page.evaluate(_BUILD, 40000 + 7 * list(RENDERERS).index(renderer))
    for index in range(2):
        page.evaluate(_CONNECT, [index, f"images.image_{index + 1}"])
    page.evaluate(
        """() => {
          const info = window.LiteGraph.createNode("PreviewAny");
          info.pos = [1200, 60];
          window.app.graph.add(info);
          window.kleinodRefs.connect(4, info, 0);
        }"""
    )
    studio.press_run()
    page.wait_for_function(_SHEET_NODES2 if RENDERERS[renderer] else _SHEET_CLASSIC)
    page.wait_for_timeout(500)
    keep_screenshot(studio, artifacts / "screenshots", f"references-sheet-{renderer}")
    assert studio.visible_dialogs() == []
