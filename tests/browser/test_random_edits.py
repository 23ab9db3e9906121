"""Random edits of a shipped workflow on the page, the same ones on every run, in both renderers.

After every few edits the graph is saved and opened again: the same file, the same prompt. The server takes
that prompt or refuses it with a sentence.
"""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.desk import Desk
from tools.browser import RENDERERS, Studio
from tools.launch.client import ComfyClient, load_prompt
from tools.launch.server import Server
from tools.launch.workflows import API_FOLDER

pytestmark = pytest.mark.browser

WORKFLOW = "Klein - Everything"
EDITS, BETWEEN_CHECKS = 16, 8

# Each edit gets random numbers from 0 to 1 in `given`, and does nothing where there is nothing to do.
_PICK = "const pick = (list, index) => list[Math.floor(given[index] * list.length)];"
_EDITS = {
    "add": """
      const node = LiteGraph.createNode(pick(given[3], 0));
      node.pos = [given[1] * 2000, given[2] * 1500];
      app.graph.add(node);""",
    "remove": "if (app.graph.nodes.length > 6) app.graph.remove(pick(app.graph.nodes, 0));",
    "connect": """
      const to = pick(app.graph.nodes.filter((node) => node.inputs?.length), 0);
      const input = pick(to.inputs, 1);
      const from = app.graph.nodes.filter((node) => node !== to).flatMap((node) => (node.outputs ?? [])
        .map((output, slot) => ({ node, output, slot })))
        .filter(({ output }) => LiteGraph.isValidConnection(output.type, input.type));
      if (from.length) pick(from, 2).node.connect(pick(from, 2).slot, to, to.inputs.indexOf(input));""",
    "disconnect": """
      const slots = app.graph.nodes.flatMap((node) => (node.inputs ?? [])
        .map((input, slot) => [node, input, slot])).filter(([, input]) => input.link != null);
      if (slots.length) pick(slots, 0)[0].disconnectInput(pick(slots, 0)[2]);""",
    "change": """
      const node = pick(app.graph.nodes.filter((one) => one.comfyClass?.startsWith("Kleinod")), 0);
      const widget = pick(node.widgets.filter((one) => !desk.pieces.includes(one.name)), 1);
      const { values, min, max, step2 } = widget.options ?? {};
      const choices = typeof values === "function" ? values(widget, node) : values;
      let value = "a text of " + given[2];
      if (Array.isArray(choices)) value = choices[Math.floor(given[2] * choices.length)] ?? widget.value;
      else if (typeof widget.value === "boolean") value = !widget.value;
      else if (typeof widget.value === "number") {
        const top = Math.min(max ?? 100, (min ?? 0) + 2000);
        value = (min ?? 0) + Math.round(given[2] * (top - (min ?? 0)) / (step2 || 1)) * (step2 || 1);
      }
      desk.set(node, widget.name, value);""",
    "undo": "await desk.command('Comfy.Undo');",
    "redo": "await desk.command('Comfy.Redo');",
    "copy": """
      desk.select([pick(app.graph.nodes, 0)]);
      app.canvas.copyToClipboard();
      app.canvas.pasteFromClipboard();""",
    "collapse": "pick(app.graph.nodes, 0).collapse();",
    "bypass": "const node = pick(app.graph.nodes, 0); node.mode = node.mode === 4 ? 0 : 4;",
    "mute": "const node = pick(app.graph.nodes, 0); node.mode = node.mode === 2 ? 0 : 2;",
    "rows": """
      const stacks = app.graph.nodes.filter((node) => node.type === "KleinodLoraStack");
      const stack = stacks.length && pick(stacks, 0);
      const buttons = stack ? [...desk.widget(stack, "kleinod_rows").element.querySelectorAll(
        ".kleinod-grip, .kleinod-remove, .kleinod-row input[type=checkbox]")] : [];
      const chosen = buttons.length && pick(buttons, 1);
      if (chosen?.matches?.(".kleinod-grip"))
        chosen.dispatchEvent(new KeyboardEvent("keydown", { key: given[2] < 0.5 ? "ArrowUp" : "ArrowDown" }));
      else chosen?.click?.();""",
    "row": """
      const stacks = app.graph.nodes.filter((node) => node.type === "KleinodLoraStack");
      if (stacks.length) {
        const rows = desk.widget(pick(stacks, 0), "rows");
        const line = `klein-nano style.safetensors ${(given[1] * 4 - 2).toFixed(2)}`;
        desk.set(pick(stacks, 0), "rows", [rows.value, line].filter(Boolean).join("\\n"));
      }""",
}
# An edit a user makes often comes often.
_WEIGHTS = {"change": 4, "rows": 3, "connect": 3, "undo": 2}


@pytest.fixture(scope="module")
def busy_server(comfy_server: Server) -> Iterator[ComfyClient]:
    """It has a long run to do, so what is queued behind is checked but never run."""
    client = comfy_server.client
    prompt = load_prompt(API_FOLDER / "Klein - Text to Image.json")
    (sampler,) = [node["inputs"] for node in prompt.values() if node["class_type"] == "KleinodSampler"]
    sampler |= {"steps": 50, "results": 20, "width": 512, "height": 512, "seed": 424242}
    client.queue(prompt)
    yield client
    client.post_json("/queue", {"clear": True})
    client.interrupt()


def offer(client: ComfyClient, prompt: dict) -> str:
    """Hand in a prompt and take it back: "" where the server takes it, its sentences where it refuses."""
    body = json.dumps({"prompt": prompt, "client_id": client.client_id}).encode()
    request = urllib.request.Request(client.url + "/prompt", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            taken = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        told = json.loads(error.read())
        assert error.code == 400, (error.code, told)
        return check_refusal(told)
    client.post_json("/queue", {"delete": [taken["prompt_id"]]})
    return check_refusal(taken)


def check_refusal(told: dict) -> str:
    """What the server says is wrong, checked to be words of ours or ComfyUI's and no crash."""
    errors = [told["error"]] if told.get("error") else []
    errors += [error for node in told.get("node_errors", {}).values() for error in node["errors"]]
    for error in errors:
        assert "exception" not in error["type"] and error["message"], error
    return "; ".join(f"{error['message']} {error.get('details', '')}" for error in errors)


def normal(graph: dict) -> dict:
    """A saved file without what looking at it changes, and with the sizes of Kleinod's nodes alone."""
    nodes = [
        node if node["type"].startswith("Kleinod") else node | {"size": None}
        for node in sorted(graph["nodes"], key=lambda node: node["id"])
    ]
    links = sorted(graph["links"], key=lambda link: link[0])
    return {"nodes": [node | {"order": None} for node in nodes], "links": links, "groups": graph["groups"]}


def test_random_edits_break_nothing(
    studio: Studio, renderer: str, busy_server: ComfyClient, repository: Path
) -> None:
    from kleinod.nodes import NODES

    desk = Desk(studio, RENDERERS[renderer])
    shipped = json.loads((repository / "workflows" / f"{WORKFLOW}.json").read_text("utf-8"))
    desk.load(shipped)
    studio.complaints.clear()
    types = [node.__name__ for node in NODES]
    dice = random.Random(f"Kleinod {renderer}")
    names = [name for name in _EDITS for _ in range(_WEIGHTS.get(name, 1))]
    done: list[str] = []
    for number in range(1, EDITS + 1):
        name = dice.choice(names)
        given = [dice.random() for _ in range(3)]
        done.append(f"{name} {given}")
        desk.do(f"{_PICK} {_EDITS[name]}", [*given, types])
        if number % BETWEEN_CHECKS == 0:
            check(desk, busy_server, done)


def check(desk: Desk, client: ComfyClient, done: list[str]) -> None:
    desk.wait_until_still()
    story = "\n".join(done)
    before, prompt = desk.save(), desk.studio.build_prompt()
    desk.load(before)
    desk.wait_until_still()
    assert desk.studio.build_prompt() == prompt, story
    assert normal(desk.save()) == normal(before), story
    ends = time.monotonic() + 60
    while faults := desk.find_misplaced():
        assert time.monotonic() < ends, "\n".join([*faults, story])
        desk.page.wait_for_timeout(200)
    desk.check_complaints()
    if prompt:
        offer(client, prompt)
