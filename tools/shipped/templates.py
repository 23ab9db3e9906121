"""Makes `workflows/NAME.json` from `workflows/api/NAME.json`: `python -m tools.shipped.templates [NAME ...]`.

The API twin says what runs; `layouts.py` says how it looks. ComfyUI's own page, in a real Chromium,
builds the graph and saves it, so the file is what a user's own Save would have written.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path

from tools.browser import Studio, open_studio
from tools.launch.client import load_prompt
from tools.launch.environment import ROOT, RUNTIME, prepare
from tools.launch.server import Server
from tools.shipped.layouts import LAYOUTS, Layout, draw_groups

WORKFLOWS = ROOT / "workflows"
NOTE_COLOUR = "#363636"  # the light page shows it lighter by half; core's yellow makes links unreadable
TEMPLATE_MARK = "kleinod_template"  # js/kleinod.templates.js takes it off again when it has opened the graph
OWN_FILES = "own files"  # its value where that script shall pick the user's files

_BUILD = """
async ([prompt, name]) => {
  await window.app.loadApiJson(prompt, name);
  return JSON.stringify((await window.app.graphToPrompt()).workflow);
}
"""
_RELOAD = """
async ([graph, name]) => {
  await window.app.loadGraphData(graph, true, true, name);
  return JSON.stringify((await window.app.graphToPrompt()).workflow);
}
"""


def make_template(studio: Studio, name: str) -> Path:
    """Build one workflow in the page, lay it out, load and save it once more, and write it."""
    prompt = load_prompt(WORKFLOWS / "api" / f"{name}.json")
    graph = json.loads(studio.page.evaluate(_BUILD, [prompt, name]))
    lay_out(graph, LAYOUTS[name])
    graph = json.loads(studio.page.evaluate(_RELOAD, [graph, name]))
    graph["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"kleinod:{name}"))  # the page's own is random
    graph["extra"] = {
        "frontendVersion": graph["extra"]["frontendVersion"],
        "ds": LAYOUTS[name].view,
        TEMPLATE_MARK: OWN_FILES if LAYOUTS[name].own_files else True,
    }
    file = WORKFLOWS / f"{name}.json"
    file.write_text(json.dumps(graph, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return file


def lay_out(graph: dict, layout: Layout) -> None:
    """Give the nodes their places, add notes and groups, and name the real weights on the loader."""
    for node in graph["nodes"]:
        x, y, width, height = layout.nodes[str(node["id"])]
        node["pos"], node["size"] = [x, y], [width, height]
        node["properties"]["Node name for S&R"] = node["type"]
        if layout.fixed_seeds:
            values = node.get("widgets_values", [])
            node["widgets_values"] = ["fixed" if value == "randomize" else value for value in values]
        if node["type"] == "KleinodLoader":
            node["properties"]["models"] = [dict(model) for model in layout.models]
    number = max(node["id"] for node in graph["nodes"])
    for note in layout.notes:
        number += 1
        x, y, width, height = note.place
        graph["nodes"].append(
            {
                "id": number,
                "type": "MarkdownNote",
                "title": note.title,
                "pos": [x, y],
                "size": [width, height],
                "flags": {},
                "order": 0,
                "mode": 0,
                "inputs": [],
                "outputs": [],
                "properties": {},
                "widgets_values": [note.text],
                "color": NOTE_COLOUR,
                "bgcolor": NOTE_COLOUR,
            }
        )
    graph["last_node_id"] = number
    graph["groups"] = draw_groups(layout.groups)


def main(names: list[str]) -> int:
    with Server(prepare(tests=True), log=RUNTIME / "logs" / "templates.log", device="cpu") as server:
        server.start()
        with open_studio(server.client) as studio:
            studio.open()
            for name in names or LAYOUTS:
                print(make_template(studio, name).relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
