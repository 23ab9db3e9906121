"""What a user does to a graph, and every piece of the frontend after it, in both renderers: shown inside its
node, with that node's values, acting on that node alone, and neither saved nor sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.desk import ROWS, STYLE, SUBJECT, Desk
from tools.browser import RENDERERS, Studio, keep_screenshot

pytestmark = pytest.mark.browser

REQUEST = {
    "taskType": "imageInference", "taskUUID": "4d3a4156-5e5e-45db-b73c-a3200a7446ed",
    "model": "runware:400@5", "positivePrompt": "a windmill", "seed": 5,
    "width": 1152, "height": 768, "steps": 32, "CFGScale": 3.5,
    "acceleration": "low", "acceleratorOptions": {"dbCache": True, "dbCacheThreshold": 0.4},
}  # fmt: skip

HOST = "const host = app.graph.nodes.find((one) => one.isSubgraphNode());"
_PASTE = """
async (text) => {
  const { pasteRequest } = await import("/extensions/kleinod/kleinod.request.js");
  await pasteRequest(desk.find("KleinodRunware"), text);
}
"""


@pytest.fixture(scope="module")
def desk(studio: Studio, renderer: str) -> Desk:
    return Desk(studio, RENDERERS[renderer])


def select(desk: Desk, *names: str) -> None:
    """Nodes by the rest of their types' names."""
    desk.do("desk.select(given.map((name) => desk.find('Kleinod' + name)))", names)


def wrap(desk: Desk, *names: str) -> None:
    """Into a subgraph."""
    desk.do("app.graph.convertToSubgraph(new Set(given.map((name) => desk.find('Kleinod' + name))))", names)


def copy_and_paste(desk: Desk) -> None:
    select(desk, "LoraStack", "Runware", "FaceSettings")
    desk.press("Control+c")
    desk.press("Control+v")
    desk.page.wait_for_function("() => app.graph.nodes.length === 15")
    desk.do("desk.set(desk.find('KleinodRunware', 1), 'steps', 44)")


def delete_and_undo(desk: Desk) -> None:
    select(desk, "LoraStack", "Runware", "Sampler")
    desk.press("Delete")
    desk.page.wait_for_function("() => app.graph.nodes.length === 9")
    desk.undo()


def change_undo_and_redo(desk: Desk) -> None:
    desk.do("desk.set(desk.find('KleinodRunware'), 'steps', 41)")
    desk.do("desk.set(desk.find('KleinodLoraStack'), 'rows', given)", f"{SUBJECT} 0.25 low")
    desk.undo()
    desk.undo()
    assert desk.do("return desk.widget(desk.find('KleinodRunware'), 'steps').value") == 30
    desk.wait_until_well()
    # Looking around is no change: what was undone can still be redone.
    desk.page.mouse.click(800, 860)
    desk.redo()
    desk.redo()
    assert desk.do("return desk.widget(desk.find('KleinodRunware'), 'steps').value") == 41
    assert desk.do("return desk.widget(desk.find('KleinodLoraStack'), 'rows').value").endswith("0.25 low")


def save_and_open_the_file(desk: Desk) -> None:
    desk.do("app.extensionManager.setting.set('Comfy.PromptFilename', false)")
    with desk.page.expect_download() as download:
        desk.do("desk.command('Comfy.ExportWorkflow')")
    desk.page.evaluate("() => app.graph.clear()")
    with desk.page.expect_file_chooser() as chooser:
        desk.do("desk.command('Comfy.OpenWorkflow')")
    saved = download.value.path().read_bytes()
    chooser.value.set_files({"name": "saved.json", "mimeType": "application/json", "buffer": saved})
    desk.page.wait_for_function("() => app.graph.nodes.length === 12")


def duplicate_the_tab_and_change_the_copy(desk: Desk) -> None:
    """The same numbers of nodes in two tabs: each shows its own."""
    tabs = desk.page.locator(".workflow-tabs .workflow-tab")
    before, graph = tabs.count(), desk.page.evaluate_handle("() => app.graph.nodes[0]")
    desk.do("await desk.command('Comfy.DuplicateWorkflow')")
    tabs.nth(before).wait_for()
    desk.page.wait_for_function(
        "(old) => app.graph.nodes.length === 12 && app.graph.nodes[0] !== old", arg=graph
    )
    desk.wait_until_still()
    desk.do("desk.set(desk.find('KleinodRunware'), 'steps', 12)")
    desk.do("desk.set(desk.find('KleinodLoraStack'), 'rows', '')")
    desk.wait_until_well(strips=None)
    tabs.nth(before - 1).click()
    desk.page.wait_for_function("() => desk.widget(desk.find('KleinodLoraStack'), 'rows').value !== ''")
    desk.page.mouse.move(800, 880)


def bypass_and_mute(desk: Desk) -> None:
    select(desk, "LoraStack", "FaceSettings")
    desk.press("Control+b")
    select(desk, "Runware")
    desk.press("Control+m")
    kinds = [node["class_type"] for node in desk.studio.build_prompt().values()]
    assert not {"KleinodLoraStack", "KleinodFaceSettings", "KleinodRunware"} & set(kinds)
    desk.wait_until_well()
    desk.press("Control+m")
    select(desk, "LoraStack", "FaceSettings")
    desk.press("Control+b")


def collapse_and_open(desk: Desk) -> None:
    select(desk, "LoraStack", "Runware", "Sampler")
    desk.press("Alt+c")
    desk.wait_until_well()
    desk.press("Alt+c")


def switch_the_renderer(desk: Desk) -> None:
    for vue_nodes in (not desk.vue_nodes, desk.vue_nodes):
        desk.do("await app.extensionManager.setting.set('Comfy.VueNodes.Enabled', given)", vue_nodes)
        desk.page.wait_for_timeout(400)
        desk.wait_until_well()


def go_through_a_subgraph(desk: Desk) -> None:
    """In, look, change, out, and unpacked again."""
    wrap(desk, "LoraStack", "Runware", "FaceSettings", "BFL", "References")
    desk.wait_until_well()
    desk.do(f"{HOST} app.canvas.openSubgraph(host.subgraph, host)")
    desk.page.wait_for_function("() => desk.look().filter((node) => node.elements.length).length === 3")
    desk.wait_until_well(strips=0)
    desk.do("app.canvas.setGraph(app.rootGraph)")
    desk.wait_until_well()
    desk.do(f"{HOST} app.graph.unpackSubgraph(host)")


def undo_a_subgraph(desk: Desk) -> None:
    steps = desk.steps_back()
    wrap(desk, "LoraStack", "Runware")
    # The new node is measured after it was drawn. Where that comes late, it is a step of the page's own,
    # at any moment: even one between two steps back.
    for _ in range(6):
        if desk.steps_back() <= steps:
            break
        desk.undo()
    assert desk.do("return app.graph.nodes.every((node) => !node.subgraph)")
    desk.page.wait_for_timeout(500)  # undoing loads the graph anew


def nothing(desk: Desk) -> None:
    """The graph as it was opened."""


# Each act, and how many samplers show their last run after it: a file does not hold that.
ACTS: dict[str, tuple[Callable[[Desk], None], int]] = {
    "opened": (nothing, 1),
    "saved": (save_and_open_the_file, 0),
    "copied": (copy_and_paste, 1),
    "deleted": (delete_and_undo, 1),
    "undone": (change_undo_and_redo, 1),
    "duplicated": (duplicate_the_tab_and_change_the_copy, 1),
    "bypassed": (bypass_and_mute, 1),
    "collapsed": (collapse_and_open, 1),
    "switched": (switch_the_renderer, 1),
    "subgraph": (go_through_a_subgraph, 1),
    "subgraph-undone": (undo_a_subgraph, 1),
}


def without_numbers(prompt: dict) -> list[str]:
    """The nodes' own values, in no order: what stays the same when nodes are numbered anew."""
    own = [
        [node["class_type"], {k: v for k, v in node["inputs"].items() if not isinstance(v, list)}]
        for node in prompt.values()
    ]
    return sorted(json.dumps(node, sort_keys=True) for node in own)


@pytest.mark.parametrize("act", list(ACTS))
def test_every_piece_survives(desk: Desk, act: str, renderer: str, artifacts: Path) -> None:
    work, strips = ACTS[act]
    desk.start()
    before = without_numbers(desk.studio.build_prompt())
    work(desk)
    desk.wait_until_well(strips)
    if act == "opened":
        keep_screenshot(desk.studio, artifacts / "screenshots", f"survival-{renderer}")
    after = without_numbers(desk.studio.build_prompt())
    if act not in ("copied", "undone"):
        assert after == before
    assert_acts_on_its_own(desk)


def read_rows(desk: Desk) -> dict[str, str]:
    return {node["id"]: node["values"]["rows"] for node in desk.look() if node["type"] == "KleinodLoraStack"}


def assert_acts_on_its_own(desk: Desk) -> None:
    """Each piece, touched, changes its own node and no other."""
    texts = read_rows(desk)
    for number in texts:
        desk.do(
            """const rows = desk.widget(desk.get(given), "kleinod_rows").element;
            rows.querySelector(".kleinod-row input[type=checkbox]").click();""",
            number,
        )
        first, *others = texts[number].splitlines()
        texts[number] = "\n".join([first + " off", *others])
        assert read_rows(desk) == texts
    desk.do("desk.set(desk.find('KleinodRunware'), 'steps', 17)")
    desk.do("desk.set(desk.find('KleinodFaceSettings'), 'preset', 'API defaults')")
    desk.wait_until_well(strips=None)


def test_an_edit_is_one_step_of_undoing(desk: Desk) -> None:
    """Rows added by hand, a pasted request, a recovered job: one step back each, and forward again."""
    desk.start()
    page = desk.page
    steps = desk.steps_back()
    rows = page.locator("[data-testid=kleinod-loras]:visible")
    rows.get_by_label(f"{STYLE} on").evaluate("(box) => box.click()")
    rows.get_by_role("button", name="+ Add LoRA").evaluate("(button) => button.click()")
    page.get_by_role("option", name="klein-nano subject").evaluate("(option) => option.click()")
    page.wait_for_function("() => desk.find('KleinodLoraStack').widgets[0].value.includes('1 sha256=')")
    edited = read_rows(desk)
    desk.wait_until_still()
    page.mouse.click(800, 880)  # a click on the empty canvas finds what came late, and nothing more
    page.evaluate("() => desk.settle()")
    edits = desk.steps_back() - steps
    assert edits in (2, 3)  # the sha256 has a step of its own where it came late
    for _ in range(edits):
        desk.undo()
    assert list(read_rows(desk).values()) == [ROWS]
    page.mouse.click(800, 880)
    for _ in range(edits):
        desk.redo()
    assert read_rows(desk) == edited

    before = desk.studio.build_prompt()
    steps = desk.steps_back()
    page.evaluate(_PASTE, json.dumps(REQUEST))
    after = desk.studio.build_prompt()
    assert len(after) == len(before) + 1 and desk.steps_back() == steps + 1
    desk.undo()
    # Nodes 2.0 sizes a new node once it is drawn, any pack's, which may be a step of its own.
    sized = desk.vue_nodes and desk.studio.build_prompt() == after
    if sized:
        desk.undo()
    assert desk.studio.build_prompt() == before
    desk.redo()
    assert desk.studio.build_prompt() == after
    desk.wait_until_well(strips=None)


def test_numbers_shown_outside_a_subgraph_count_inside(desk: Desk) -> None:
    """The line of cost, and copying and pasting a request: what the outside says is what is sent."""
    desk.start()
    wrap(desk, "Runware")
    desk.do(
        f"""{HOST} const inner = host.subgraph.nodes[0];
        const steps = inner.inputs.find((slot) => slot.name === "steps");
        host.subgraph.addInput("how many", "INT").connect(steps, inner);"""
    )
    for steps in (45, 22):
        desk.do(f"{HOST} desk.set(host, 'how many', given)", steps)
        desk.do(f"{HOST} app.canvas.openSubgraph(host.subgraph, host)")
        (node,) = desk.look()
        line = desk.expected_line(node, references=0, steps=steps)
        shown = "(line) => desk.look()[0].line.startsWith(line) && !desk.look()[0].line.includes('connected')"
        desk.page.wait_for_function(shown, arg=line)
        desk.do("app.canvas.setGraph(app.rootGraph)")
    desk.do(f"{HOST} app.canvas.openSubgraph(host.subgraph, host)")
    desk.page.evaluate(_PASTE, json.dumps(REQUEST))
    prompt = desk.studio.build_prompt().values()
    (sent,) = [one["inputs"] for one in prompt if one["class_type"] == "KleinodRunware"]
    assert (sent["steps"], sent["width"], sent["height"]) == (32, 1152, 768)
    desk.do("app.canvas.setGraph(app.rootGraph)")


def test_a_connected_number_leaves_the_preset(desk: Desk) -> None:
    """Which would not read it; opening a file changes nothing, whatever the file says."""
    desk.start()
    preset = "return desk.widget(desk.find('KleinodFaceSettings'), 'preset').value"
    connect = (
        "desk.link(desk.add('PrimitiveFloat', 900, 800), 'FLOAT', desk.find('KleinodFaceSettings'), given)"
    )
    desk.do(connect, "max_upscale")
    assert desk.do(preset) == "Klein distilled"  # belongs to no preset
    desk.do(connect, "strength")
    assert desk.do(preset) == "custom"
    desk.do("desk.widget(desk.find('KleinodFaceSettings'), 'preset').value = 'Klein'")
    desk.load(desk.save())
    assert desk.do(preset) == "Klein"


def test_a_picture_more_changes_the_line(desk: Desk) -> None:
    """It is connected to Klein References, not to the node with the line."""
    desk.start()
    desk.wait_until_well()
    (before,) = [node["line"] for node in desk.look() if node["type"] == "KleinodBFL"]
    desk.do("desk.link(desk.find('EmptyImage'), 'IMAGE', desk.find('KleinodReferences'), 'images.image_3')")
    (node,) = [node for node in desk.look() if node["type"] == "KleinodBFL"]
    more = desk.expected_line(node, references=3)
    assert not before.startswith(more)
    desk.page.wait_for_function(
        "(line) => desk.look().find((node) => node.type === 'KleinodBFL').line.startsWith(line)", arg=more
    )


def test_without_the_scripts_every_node_is_plain_and_sends_the_same(
    desk: Desk, renderer: str, artifacts: Path
) -> None:
    desk.start()
    desk.wait_until_well()
    saved, prompt = desk.save(), desk.studio.build_prompt()
    desk.page.route("**/extensions/kleinod/**", lambda route: route.abort())
    try:
        desk.open()
        names = desk.page.evaluate("() => app.extensions.map((one) => one.name)")
        assert names and not [name for name in names if name.startswith("kleinod")]
        desk.load(saved)
        nodes = desk.look()
        assert {node["type"] for node in nodes} == set(without_size(saved)) - {"EmptyImage", "PreviewImage"}
        assert all(node["elements"] == [] for node in nodes)
        assert desk.studio.build_prompt() == prompt
        again = desk.save()
        assert without_size(again) == without_size(saved)
        hidden = desk.do(
            """return app.graph.nodes.flatMap((node) => (node.widgets ?? [])
              .filter((widget) => widget.hidden).map((widget) => node.type + "." + widget.name));"""
        )
        assert hidden == []
        desk.page.wait_for_function(
            """(rows) => [...document.querySelectorAll("textarea")]
              .filter((one) => one.checkVisibility() && one.value === rows).length === 1""",
            arg=ROWS,
        )
        keep_screenshot(desk.studio, artifacts / "screenshots", f"survival-{renderer}-without-scripts")
    finally:
        desk.page.unroute("**/extensions/kleinod/**")
        desk.open()
    # And what was saved there opens here.
    desk.load(again)
    desk.wait_until_well(strips=0)
    assert desk.studio.build_prompt() == prompt
    assert without_size(desk.save()) == without_size(saved)


def without_size(graph: dict) -> dict[str, list[dict]]:
    """Nodes of each type; their sizes differ where rows stand in place of widgets."""
    found: dict[str, list[dict]] = {}
    for node in graph["nodes"]:
        kept = {key: value for key, value in node.items() if key != "size"}
        found.setdefault(node["type"], []).append(kept)
    return found
