"""A new user's first minute in a real Chromium, in both renderers: open a template, Run, see a picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.browser import RENDERERS, Studio, keep_screenshot
from tools.launch.client import load_prompt
from tools.launch.workflows import API_FOLDER, ORDER

pytestmark = pytest.mark.browser

# Pictures the page has loaded and draws: on the canvas in the classic renderer, as elements in Nodes 2.0.
_SHOWN_CLASSIC = """
() => window.app.graph.nodes
  .filter((node) => node.type === "SaveImage")
  .every((node) => node.imgs?.length > 0 && node.imgs.every((image) => image.naturalWidth > 0))
"""
_SHOWN_NODES2 = """
() => {
  const saved = window.app.graph.nodes.filter((node) => node.type === "SaveImage");
  return saved.every((node) => {
    const images = document.querySelectorAll(`[data-node-id="${node.id}"] img`);
    return [...images].some((image) => image.naturalWidth > 0 && image.getBoundingClientRect().width > 40);
  });
}
"""

# ComfyUI's own words at its start: about a fresh user's empty folders, its older menu, and the models of the
# graph it opens with.
_OF_THE_PAGE = ("huggingface.co", "userdata", "user.css", "legacy queue", "MaskEditor", "before initial")
# Of newer pages (1.58): about their own panes, and their own calls before `Studio.deprecations` listens.
_OF_THE_PAGE += ("Invalid layout total size", "is deprecated")


@pytest.mark.parametrize("name", ORDER)
def test_template_opens_runs_and_shows_pictures(
    studio: Studio, renderer: str, name: str, artifacts: Path
) -> None:
    shots = artifacts / "screenshots"
    slug = f"{name.removeprefix('Klein - ').lower().replace(' ', '-')}-{renderer}"
    studio.complaints.clear()
    studio.open(vue_nodes=RENDERERS[renderer])

    studio.open_template(name)
    keep_screenshot(studio, shots, f"{slug}-1-opened")
    assert studio.visible_dialogs() == []
    complaints = [text for text in studio.complaints if not any(word in text for word in _OF_THE_PAGE)]
    assert complaints == [], "a warning of any kind, also of the page about our nodes"
    assert studio.deprecations() == set()
    twin = load_prompt(API_FOLDER / f"{name}.json")
    expected = {
        number: {"class_type": node["class_type"], "inputs": node["inputs"]} for number, node in twin.items()
    }
    assert studio.build_prompt() == expected

    # Each runs in one renderer, the first in both; by the API all of them run in the server tests.
    if name != ORDER[0] and ORDER.index(name) % 2 != RENDERERS[renderer]:
        return
    studio.press_run()
    shown = _SHOWN_NODES2 if RENDERERS[renderer] else _SHOWN_CLASSIC
    studio.page.wait_for_function(shown)
    studio.page.wait_for_timeout(500)
    keep_screenshot(studio, shots, f"{slug}-2-done")
    assert studio.visible_dialogs() == []
    assert studio.complaints_about("kleinod") == []


def test_the_shelf_is_in_an_order_of_learning_and_says_what_each_is_for(studio: Studio) -> None:
    studio.open()
    studio.page.get_by_role("button", name="Templates").first.click()
    studio.page.get_by_text("kleinod", exact=True).last.click()
    studio.page.get_by_text("Start here: words become four pictures").wait_for()
    cards = studio.page.locator('[data-testid^="template-workflow-"]')
    cards.nth(len(ORDER) - 1).wait_for()
    assert cards.locator("h3").all_inner_texts() == list(ORDER)
    told = [text.replace(" - ", " ") for text in cards.locator("p").all_inner_texts()]
    assert len(told) == len(ORDER)
    assert not any(text == name.replace(" - ", " ") for text, name in zip(told, ORDER, strict=True))


def test_deprecated_calls_are_seen(studio: Studio) -> None:
    """What a script of ours would do, run as one of ours: else an empty list would say nothing."""
    studio.open()
    studio.page.evaluate(
        """() => new Function(
          "LiteGraph.onDeprecationWarning.forEach((tell) => tell('gone soon'))\\n"
          + "//# sourceURL=" + location.origin + "/extensions/kleinod/kleinod.test.js"
        )()"""
    )
    assert studio.deprecations() == {"gone soon"}
    assert studio.deprecations("another") == set()


def test_nodes_survive_saving_and_loading(studio: Studio, renderer: str) -> None:
    """Save, clear, load: the same graph, the same prompt."""
    studio.open(vue_nodes=RENDERERS[renderer])
    studio.open_template(ORDER[0])
    before = studio.build_prompt()
    studio.page.evaluate(
        """async () => {
          const saved = JSON.parse(JSON.stringify(window.app.graph.serialize()));
          window.app.graph.clear();
          await window.app.loadGraphData(saved);
        }"""
    )
    assert studio.build_prompt() == before
    assert studio.visible_dialogs() == []


def test_a_missing_model_is_said_on_the_page(studio: Studio, renderer: str, artifacts: Path) -> None:
    """A name that is not there: the page shows whose input it is, and nothing runs."""
    studio.open(vue_nodes=RENDERERS[renderer])
    studio.open_template(ORDER[0])
    studio.page.evaluate(
        """() => {
          const loader = window.app.graph.nodes.find((node) => node.type === "KleinodLoader");
          loader.widgets.find((widget) => widget.name === "diffusion_model").value = "not there.safetensors";
        }"""
    )
    studio.page.get_by_role("button", name="Run", exact=True).first.click()
    studio.page.get_by_text("not there.safetensors").first.wait_for()
    keep_screenshot(studio, artifacts / "screenshots", f"missing-model-{renderer}")


def test_every_node_draws_without_an_error(studio: Studio, renderer: str, artifacts: Path) -> None:
    from kleinod.nodes import NODES

    studio.complaints.clear()
    studio.open(vue_nodes=RENDERERS[renderer])
    added = studio.page.evaluate(
        """(types) => types.map((type, index) => {
          const node = window.LiteGraph.createNode(type);
          node.pos = [(index % 4) * 480, Math.floor(index / 4) * 640];
          window.app.graph.add(node);
          return node.title;
        })""",
        [node.__name__ for node in NODES],
    )
    assert added == [node.GET_SCHEMA().display_name for node in NODES]
    studio.page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    studio.page.wait_for_timeout(1500)
    keep_screenshot(studio, artifacts / "screenshots", f"all-nodes-{renderer}")
    assert studio.complaints_about("kleinod") == []
