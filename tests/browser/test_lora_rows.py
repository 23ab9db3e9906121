"""The rows of Klein LoRA Stack in a real Chromium, in both renderers: edited, kept, undone, and absent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator

from tools.browser import RENDERERS, Studio, keep_screenshot

pytestmark = pytest.mark.browser

STYLE, SUBJECT = "klein-nano style.safetensors", "klein-nano subject.safetensors"
TEXT = f"{STYLE} 0.8\n# a remark\n{SUBJECT} -0.5 high off air=civitai:1@2"
HIDDEN_TOO = "[data-testid=kleinod-loras]"
VIEW = f"{HIDDEN_TOO}:visible"

_ADD = """
(text) => {
  const node = window.LiteGraph.createNode("KleinodLoraStack");
  node.pos = [120, 120];
  window.app.graph.add(node);
  node.widgets.find((widget) => widget.name === "rows").value = text;
  Object.assign(window.app.canvas.ds, { scale: 1 });
  window.app.canvas.ds.offset = [60, 60];
  window.app.canvas.setDirty(true, true);
}
"""
_TEXT = "() => window.app.graph.nodes[0].widgets.find((widget) => widget.name === 'rows').value"


@pytest.fixture(scope="module")
def studio(studio: Studio, renderer: str) -> Studio:
    """The page, opened once in each renderer."""
    studio.open(vue_nodes=RENDERERS[renderer])
    return studio


@pytest.fixture
def rows(studio: Studio) -> Iterator[Locator]:
    """A fresh node with three lines."""
    studio.page.keyboard.press("Escape")
    studio.complaints.clear()
    studio.page.evaluate("() => window.app.graph.clear()")
    studio.page.wait_for_function(f"() => !document.querySelector('{HIDDEN_TOO}')?.checkVisibility()")
    studio.page.evaluate(_ADD, TEXT)
    view = studio.page.locator(VIEW)
    view.get_by_text("klein-nano style").wait_for()
    yield view
    assert studio.complaints_about("kleinod") == []


def text_of(studio: Studio) -> str:
    return studio.page.evaluate(_TEXT)


def wait_for_text(studio: Studio, text: str) -> None:
    studio.page.wait_for_function(f"(text) => ({_TEXT})() === text", arg=text)


def test_rows_are_shown_and_edited(studio: Studio, rows: Locator, renderer: str, artifacts: Path) -> None:
    keep_screenshot(studio, artifacts / "screenshots", f"lora-rows-{renderer}")
    assert rows.get_by_text("1 of 2 on").is_visible()
    assert studio.page.locator("textarea:visible").count() == 0  # the plain text is not shown beside them
    assert studio.page.get_by_text("stage", exact=True).locator("visible=true").count() == 0
    rows.get_by_label(f"{SUBJECT} on").check()
    rows.get_by_label(f"Stage of {STYLE}").select_option("low")
    weight = rows.get_by_label(f"Weight of {STYLE}")
    weight.fill("9")
    weight.press("Enter")
    assert weight.input_value() == "4.00"
    assert text_of(studio) == f"{STYLE} 4 low\n# a remark\n{SUBJECT} -0.5 high air=civitai:1@2"
    rows.get_by_label("All rows on or off").uncheck()
    assert text_of(studio) == f"{STYLE} 4 low off\n# a remark\n{SUBJECT} -0.5 high off air=civitai:1@2"
    rows.get_by_label("Remove this row").nth(1).click()
    assert text_of(studio) == f"{STYLE} 4 low off\n{SUBJECT} -0.5 high off air=civitai:1@2"


def drag(studio: Studio, start: Locator, dx: float, dy: float) -> None:
    box = start.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse = studio.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + dx / 2, y + dy / 2, steps=4)
    mouse.move(x + dx, y + dy, steps=4)
    mouse.up()


def test_the_weight_is_dragged_and_the_order_too(studio: Studio, rows: Locator) -> None:
    place = studio.page.evaluate("() => [...window.app.graph.nodes[0].pos]")
    drag(studio, rows.get_by_label(f"Weight of {STYLE}"), 40, 0)
    assert text_of(studio).startswith(f"{STYLE} 1\n")
    grips = rows.locator(".kleinod-grip")
    drag(studio, grips.nth(2), 0, -70)
    assert text_of(studio) == f"{SUBJECT} -0.5 high off air=civitai:1@2\n{STYLE} 1\n# a remark"
    grips.nth(0).press("ArrowDown")
    assert text_of(studio) == f"{STYLE} 1\n{SUBJECT} -0.5 high off air=civitai:1@2\n# a remark"
    # None of it moved the node or the canvas.
    assert studio.page.evaluate("() => [...window.app.graph.nodes[0].pos]") == place


def test_a_file_is_searched_and_its_hash_remembered(
    studio: Studio, rows: Locator, renderer: str, artifacts: Path
) -> None:
    rows.get_by_role("button", name="+ Add LoRA").click()
    search = studio.page.get_by_label("Search LoRA files")
    search.fill("nothing like this")
    assert studio.page.get_by_text("No file has this in its name.").is_visible()
    search.fill("subject nano")
    keep_screenshot(studio, artifacts / "screenshots", f"lora-search-{renderer}")
    search.press("Enter")
    known = studio.client.get_json(f"/kleinod/loras/info?file={SUBJECT.replace(' ', '%20')}")["sha256"]
    # The other row of the same file learns it too.
    others = f"# a remark\n{SUBJECT} -0.5 high off air=civitai:1@2 sha256={known}\n{SUBJECT} 1 sha256={known}"
    wait_for_text(studio, f"{STYLE} 0.8\n{others}")

    rows.get_by_label(f"LoRA file: {STYLE}").click()
    studio.page.get_by_role("option", name="klein-nano subject").click()
    wait_for_text(studio, f"{SUBJECT} 0.8 sha256={known}\n{others}")


def test_a_row_tells_of_its_file(studio: Studio, rows: Locator, renderer: str, artifacts: Path) -> None:
    rows.get_by_label(f"About {STYLE}").click()
    panel = studio.page.get_by_role("dialog").filter(has_text="AIR id")
    for fact in ("ink drawing", "klein-nano", "16"):
        panel.get_by_text(fact).first.wait_for()
    studio.page.wait_for_function("() => document.querySelector('.kleinod-preview')?.naturalWidth > 0")
    keep_screenshot(studio, artifacts / "screenshots", f"lora-info-{renderer}")
    air = panel.get_by_label("AIR id")
    air.fill("no id")
    air.press("Tab")
    assert panel.get_by_text("An AIR id looks like").is_visible()
    air.fill("civitai:7@8")
    air.press("Escape")
    assert not panel.is_visible()
    assert text_of(studio).startswith(f"{STYLE} 0.8 air=civitai:7@8\n")


def test_the_rows_survive_saving_copying_and_undoing(studio: Studio, rows: Locator) -> None:
    prompt = studio.build_prompt()
    (sent,) = prompt.values()
    assert sent["inputs"]["rows"] == TEXT
    assert not any("kleinod" in name for name in sent["inputs"])
    saved = studio.page.evaluate("() => JSON.stringify(window.app.graph.serialize())")
    (node,) = json.loads(saved)["nodes"]
    assert node["widgets_values"][:4] == [TEXT, "none", 1, "both"] and len(node["widgets_values"]) == 8
    studio.page.evaluate("async (saved) => await window.app.loadGraphData(JSON.parse(saved))", saved)
    assert studio.build_prompt() == prompt
    rows.get_by_text("1 of 2 on").wait_for()

    rows.get_by_label(f"{SUBJECT} on").check()
    assert text_of(studio) != TEXT
    studio.page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Undo')")
    wait_for_text(studio, TEXT)
    rows.get_by_text("1 of 2 on").wait_for()
    rows.get_by_label(f"{STYLE} on").uncheck()  # these are the rows of the node that came back
    assert text_of(studio) == TEXT.replace("0.8", "0.8 off")
    rows.get_by_label(f"{STYLE} on").check()

    studio.page.evaluate(
        """() => {
          const { canvas, graph } = window.app;
          canvas.selectItems([graph.nodes[0]]);
          canvas.copyToClipboard();
          canvas.pasteFromClipboard();
        }"""
    )
    studio.page.wait_for_function("() => window.app.graph.nodes.length === 2")
    texts = studio.page.evaluate("() => window.app.graph.nodes.map((node) => node.widgets[0].value)")
    assert texts == [TEXT, TEXT]
    rows.nth(1).wait_for()  # shown once it is drawn
    assert rows.count() == 2


def test_the_rows_live_in_a_subgraph(studio: Studio, rows: Locator, renderer: str, artifacts: Path) -> None:
    prompt = list(studio.build_prompt().values())
    studio.page.evaluate(
        """() => {
          window.app.canvas.selectItems([window.app.graph.nodes[0]]);
          window.app.graph.convertToSubgraph(new Set([window.app.graph.nodes[0]]));
        }"""
    )
    studio.page.wait_for_function("() => window.app.graph.nodes[0].isSubgraphNode?.()")
    assert list(studio.build_prompt().values()) == prompt
    studio.page.evaluate(
        "() => window.app.canvas.openSubgraph(window.app.graph.nodes[0].subgraph, window.app.graph.nodes[0])"
    )
    inner = studio.page.locator(VIEW)
    inner.get_by_label(f"{SUBJECT} on").check()
    keep_screenshot(studio, artifacts / "screenshots", f"lora-subgraph-{renderer}")
    studio.page.evaluate(
        "() => window.app.canvas.setGraph(window.app.rootGraph ?? window.app.graph.rootGraph)"
    )
    (sent,) = studio.build_prompt().values()
    assert sent["inputs"]["rows"] == TEXT.replace(" off", "")


def test_a_subgraph_shows_the_text_on_its_outside(studio: Studio, rows: Locator) -> None:
    """Promoted, the rows are a plain text there; inside, they say that they come from the input."""
    studio.page.evaluate(
        """() => {
          const { graph, canvas } = window.app;
          graph.convertToSubgraph(new Set([graph.nodes[0]]));
          const [host] = graph.nodes;
          const [inner] = host.subgraph.nodes;
          const input = inner.inputs.find((slot) => slot.name === "rows");
          host.subgraph.addInput("rows", "STRING").connect(input, inner);
          host.pos = [200, 200];
          host.setSize([420, 260]);
          canvas.setDirty(true, true);
        }"""
    )
    field = studio.page.locator("textarea:visible")
    field.wait_for()
    assert field.input_value() == TEXT
    field.fill(f"{STYLE} 2")
    (sent,) = studio.build_prompt().values()
    assert sent["inputs"]["rows"] == f"{STYLE} 2"
    studio.page.evaluate(
        "() => window.app.canvas.openSubgraph(window.app.graph.nodes[0].subgraph, window.app.graph.nodes[0])"
    )
    studio.page.locator(VIEW).get_by_text("rows come from the connected input").wait_for()
    studio.page.evaluate(
        "() => window.app.canvas.setGraph(window.app.rootGraph ?? window.app.graph.rootGraph)"
    )


def test_text_can_be_pasted_and_the_plain_pick_joins_the_rows(studio: Studio, rows: Locator) -> None:
    studio.page.evaluate(
        """() => {
          const widgets = window.app.graph.nodes[0].widgets;
          const set = (name, value) => { widgets.find((widget) => widget.name === name).value = value; };
          set("lora", "klein-nano subject.safetensors");
          set("weight", 0.25);
          set("stage", "low");
          widgets.find((widget) => widget.name === "stage").callback?.("low");
        }"""
    )
    rows.get_by_text("2 of 3 on").wait_for()
    rows.get_by_role("button", name="Text").click()
    field = rows.get_by_label("Rows as text")
    field.fill("<lora:klein-nano style:0.7> <lora:gone:1>")
    field.blur()
    wait_for_text(studio, f'"klein-nano style" 0.7\n"gone" 1\n{SUBJECT} 0.25 low')
    rows.get_by_role("button", name="Rows").click()
    assert rows.locator(".kleinod-missing").all_inner_texts()[0].find("gone") >= 0
    assert rows.locator(".kleinod-missing").count() == 1
    (sent,) = studio.build_prompt().values()
    assert (sent["inputs"]["lora"], sent["inputs"]["weight"], sent["inputs"]["stage"]) == ("none", 1, "both")


def test_without_the_script_the_plain_widgets_remain(studio: Studio, renderer: str, artifacts: Path) -> None:
    page = studio.page
    page.route("**/kleinod.loras.js", lambda route: route.abort())
    try:
        studio.open(vue_nodes=RENDERERS[renderer])
        page.evaluate(_ADD, TEXT)
        page.locator("textarea:visible").first.wait_for()
        assert page.locator("textarea:visible").first.input_value() == TEXT
        names = page.evaluate(
            "() => window.app.graph.nodes[0].widgets.filter((w) => !w.hidden).map((w) => w.name)"
        )
        assert names[:4] == ["rows", "lora", "weight", "stage"]
        (sent,) = studio.build_prompt().values()
        assert sent["inputs"]["rows"] == TEXT
        keep_screenshot(studio, artifacts / "screenshots", f"lora-plain-{renderer}")
    finally:
        page.unroute("**/kleinod.loras.js")
