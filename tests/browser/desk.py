"""A graph that holds every piece of Kleinod's frontend, and the hands of a user on it."""

from __future__ import annotations

import json
import time
from typing import Any

from kleinod.nodes.acceleration.report import describe_kinds
from kleinod_pure.faces.presets import FIELDS, PRESETS
from kleinod_pure.loras.rows import parse_rows

from tools.browser import Studio

STYLE, SUBJECT = "klein-nano style.safetensors", "klein-nano subject.safetensors"
ROWS = f"{STYLE} 0.8\n{SUBJECT} -0.5 high off"
REMOTE = {"KleinodRunware": "runware", "KleinodBFL": "bfl"}
ASKED = ("width", "height", "steps", "number_results", "endpoint")
PATTERN = "CCHRCR"
RUNS = [
    {
        "label": "seed 7",
        "pattern": PATTERN,
        "line": "4 of 6 steps computed",
        "kinds": describe_kinds(PATTERN),
    }
]
# ComfyUI's own, said of any node: a widget that a subgraph showed outside has no link there; a bypassed node
# has nothing of the kind to hand on; one whose sockets grow looks for its links after it left the graph for a
# subgraph (page 1.58; core's Batch Images does it, too).
CORE_NOISE = (
    "Missing Link ID when unpacking",
    "[ExecutableNodeDTO.resolveOutput] No input types match",
    "autogrowInputDisconnected",
)

# The page's side: few and small functions, so that the tests read as what a user does.
_TOOLS = """
() => {
  const desk = (window.desk = { pieces: ["kleinod_rows", "kleinod_estimate", "kleinod_strip"] });
  const all = (type) => app.canvas.graph.nodes.filter((node) => node.type === type);
  desk.find = (type, index = 0) => all(type)[index];
  desk.get = (id) => app.canvas.graph.getNodeById(id);
  desk.widget = (node, name) => node.widgets.find((widget) => widget.name === name);
  desk.slot = (slots, name) => slots.findIndex((slot) => slot.name === name);
  desk.add = (type, x, y, values = {}) => {
    const node = LiteGraph.createNode(type);
    node.pos = [x, y];
    app.canvas.graph.add(node);
    for (const [name, value] of Object.entries(values)) desk.set(node, name, value);
    return node;
  };
  desk.set = (node, name, value) => {
    const widget = desk.widget(node, name);
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
  };
  desk.link = (from, output, to, input) =>
    from.connect(desk.slot(from.outputs, output), to, desk.slot(to.inputs, input));
  desk.see = () => {
    Object.assign(app.canvas.ds, { scale: 0.62, offset: [80, 90] });
    app.canvas.setDirty(true, true);
  };
  desk.command = (name) => app.extensionManager.command.execute(name);
  desk.tracker = () => app.extensionManager.workflow.activeWorkflow.changeTracker;
  // Page 1.47 loads what a step back held while it takes further keys, and a second step in the midst of that
  // mixes up both lists of steps. The key is heard in the frame after it was pressed.
  desk.restored = async () => {
    const frame = () => new Promise((then) => requestAnimationFrame(then));
    await frame();
    do await frame();
    while (desk.tracker()._restoringState);
  };
  // As after any click or key of the user.
  desk.settle = () => desk.tracker().captureCanvasState();
  desk.select = (nodes) => {
    app.canvas.deselectAll();
    app.canvas.selectItems(nodes);
  };
  desk.box = (node) => {
    const element = document.querySelector(`[data-node-id="${node.id}"]`);
    if (LiteGraph.vueNodesMode) return element?.getBoundingClientRect();
    const { scale } = app.canvas.ds;
    const [left, top] = app.canvas.ds.convertOffsetToCanvas([...node.pos]);
    const place = app.canvas.canvas.getBoundingClientRect();
    const box = { left: left + place.left, top: top + place.top };
    return { ...box, right: box.left + node.size[0] * scale, bottom: box.top + node.size[1] * scale };
  };
  // What a user sees of each Kleinod node in the graph on the screen.
  const own = () => app.canvas.graph.nodes.filter((node) => node.comfyClass?.startsWith("Kleinod"));
  desk.look = () => own().map((node) => {
    const widgets = node.widgets ?? [];
    const values = Object.fromEntries(widgets.map(({ name, value }) => [name, value]));
    const faults = [];
    const elements = widgets.filter((widget) => desk.pieces.includes(widget.name));
    for (const { name, element } of elements) {
      if (node.flags.collapsed) {
        if (element.checkVisibility()) faults.push(`${name} is shown on a collapsed node`);
        continue;
      }
      if (!element.checkVisibility()) {
        faults.push(`${name} is not shown`);
        continue;
      }
      const outer = desk.box(node);
      const inner = element.getBoundingClientRect();
      const [across, down] = [inner.right - outer.right, inner.bottom - outer.bottom];
      const farthest = Math.max(outer.left - inner.left, outer.top - inner.top, across, down);
      if (farthest > 2) faults.push(`${name} hangs out of its node`);
      if (element.scrollHeight > element.clientHeight + 1) faults.push(`${name} is cut off`);
    }
    const rows = desk.widget(node, "kleinod_rows")?.element;
    return {
      id: String(node.id),
      type: node.type,
      values,
      faults,
      elements: elements.map((widget) => widget.name),
      rows: [...(rows?.querySelectorAll(".kleinod-row") ?? [])].map((row) => ({
        file: row.querySelector(".kleinod-name")?.title.split("\\n")[0],
        weight: Number(row.querySelector(".kleinod-weight")?.value),
        stage: row.querySelector("select")?.value,
        enabled: row.querySelector("input[type=checkbox]")?.checked,
      })),
      line: desk.widget(node, "kleinod_estimate")?.element.textContent,
      strip: [...(desk.widget(node, "kleinod_strip")?.element.querySelectorAll("[role=img]") ?? [])]
        .map((row) => row.ariaLabel),
    };
  });
  // Elements of nodes that are gone, or of another node with the same number.
  desk.strays = () => {
    const owned = new Set(own().flatMap((node) => node.widgets.map((widget) => widget.element)));
    return [...document.querySelectorAll(".kleinod-loras, .kleinod-estimate, .kleinod-strip")]
      .filter((one) => one.checkVisibility() && !owned.has(one))
      .map((one) => one.className + ": " + one.textContent);
  };
}
"""
_BUILD = """
async ([rows, runs]) => {
  const stack = desk.add("KleinodLoraStack", 0, 0, { rows });
  const sampler = desk.add("KleinodSampler", 940, 0, { steps: 6, seed: 7 });
  const prompt = desk.add("KleinodPrompt", 0, 400, { positive: "a fox" });
  const runware = desk.add("KleinodRunware", 490, 0, { steps: 30, positive_prompt: "a fox", seed: 5 });
  const bfl = desk.add("KleinodBFL", 1360, 0, { prompt: "a fox", seed: 6 });
  const faces = desk.add("KleinodFaceSettings", 1360, 620, { preset: "Klein distilled" });
  const references = desk.add("KleinodReferences", 1800, 0);
  const recover = desk.add("KleinodRecoverJob", 1800, 420);
  const image = desk.add("EmptyImage", 940, 620, { width: 96, height: 64 });
  desk.link(stack, "model", sampler, "model");
  desk.link(stack, "loras", runware, "loras");
  desk.link(prompt, "positive", sampler, "positive");
  desk.link(prompt, "negative", sampler, "negative");
  desk.link(faces, "settings", runware, "face_refinement");
  desk.link(image, "IMAGE", references, "images.image_1");
  // The page adds a socket a few frames after the last one was taken.
  const grown = async (name) => {
    while (desk.slot(references.inputs, name) < 0) await new Promise(requestAnimationFrame);
  };
  await grown("images.image_2");
  desk.link(image, "IMAGE", references, "images.image_2");
  await grown("images.image_3");
  desk.link(references, "references", bfl, "references");
  for (const [index, from] of [sampler, runware, bfl].entries()) {
    const preview = desk.add("PreviewImage", 2160, 260 * index);
    from.connect(0, preview, 0);
  }
  // What a saved file says may stay out of the choices; it must survive all the same.
  desk.widget(recover, "job").value = "a job of another computer";
}
"""
_SHOW_RUN = """
(runs) => {
  const node = desk.find("KleinodSampler");
  app.api.dispatchCustomEvent("executed", {
    node: String(node.id), display_node: String(node.id), prompt_id: "none", output: { kleinod_runs: runs },
  });
}
"""


class Desk:
    """One open page and the hands of a user on it."""

    def __init__(self, studio: Studio, vue_nodes: bool) -> None:
        self.studio = studio
        self.page = studio.page
        self.client = studio.client
        self.vue_nodes = vue_nodes
        self._checks = {
            "KleinodLoraStack": self._check_rows,
            "KleinodRunware": lambda node: self._check_line(node, references=0),
            "KleinodBFL": lambda node: self._check_line(node, references=2),
            "KleinodFaceSettings": self._check_preset,
        }
        self.open()
        self.page.evaluate(_BUILD, [ROWS, RUNS])
        self.wait_until_still()
        self.scene = self.save()

    def open(self) -> None:
        """Load the page anew."""
        self.studio.open(vue_nodes=self.vue_nodes)
        self.arm()

    def arm(self) -> None:
        self.page.evaluate(_TOOLS)
        self.studio.complaints.clear()

    def do(self, script: str, argument: Any = None) -> Any:
        """Run a function's body with `desk` and `given` in reach, then what any click does: keep a step."""
        return self.page.evaluate(
            f"async (given) => {{ const done = await (async () => {{ {script} }})();"
            " desk.settle(); return done; }",
            argument,
        )

    def save(self) -> dict:
        """The graph as a file would hold it."""
        return json.loads(self.page.evaluate("() => JSON.stringify(app.rootGraph.serialize())"))

    def load(self, graph: dict) -> None:
        """Open a saved graph, as a new tab, near enough to be drawn in full."""
        self.page.evaluate("async (graph) => { await app.loadGraphData(graph); }", graph)
        self.page.evaluate("() => desk.see()")
        self.page.wait_for_timeout(200)

    def wait_until_still(self) -> None:
        """The page has made of the graph what it makes of it by and by: sizes, sockets."""
        self.studio.wait_until_still("() => JSON.stringify(app.rootGraph.serialize())")

    def start(self) -> None:
        """The whole graph, just opened, its sampler just run; the mouse where nothing tells of itself."""
        self.page.mouse.move(800, 880)
        self.load(self.scene)
        self.page.evaluate(_SHOW_RUN, RUNS)
        self.page.evaluate("() => desk.settle()")
        self.studio.complaints.clear()

    def press(self, keys: str) -> None:
        """A shortcut of the page, with the canvas in focus."""
        self.page.evaluate("() => app.canvas.canvas.focus()")
        self.page.keyboard.press(keys)
        self.page.evaluate("() => desk.restored()")
        self.page.wait_for_timeout(250)

    def undo(self) -> None:
        self.press("Control+z")

    def redo(self) -> None:
        self.press("Control+y")

    def steps_back(self) -> int:
        """How often undo would do something."""
        return self.page.evaluate("() => desk.tracker().undoQueue.length")

    def look(self) -> list[dict]:
        return self.page.evaluate("() => desk.look()")

    def find_misplaced(self) -> list[str]:
        """Elements that are gone, hang out of their node, or belong to none."""
        faults = [f"{node['type']} {node['id']}: {fault}" for node in self.look() for fault in node["faults"]]
        return faults + [f"stray {text}" for text in self.page.evaluate("() => desk.strays()")]

    def find_faults(self, strips: int | None = 1) -> list[str]:
        """What of the frontend is gone, shows another node's values, or hangs out of its node: [] if all is
        well. `strips`: how many samplers show their last run; None if that does not matter here.
        """
        nodes = self.look()
        faults = [f"{node['type']} {node['id']}: {fault}" for node in nodes for fault in node["faults"]]
        faults += [f"stray {text}" for text in self.page.evaluate("() => desk.strays()")]
        faults += [f"dialog {text!r}" for text in self.studio.visible_dialogs()]
        for node in nodes:
            check = self._checks.get(node["type"])
            if wrong := check and check(node):
                faults.append(f"{node['type']} {node['id']}: {wrong}")
        shown = [node["strip"] for node in nodes if node["strip"]]
        expected = [f"{run['label']}: {run['pattern']}" for run in RUNS]
        if strips is not None and shown != [expected] * strips:
            faults.append(f"strips: {shown}")
        return faults

    def wait_until_well(self, strips: int | None = 1) -> None:
        """Everything is shown as it should be, at the latest after a minute; AssertionError otherwise."""
        ends = time.monotonic() + 60
        while faults := self.find_faults(strips):
            assert time.monotonic() < ends, "\n".join(faults)
            self.page.wait_for_timeout(200)
        self.check_complaints()

    def check_complaints(self) -> None:
        """AssertionError if the console said anything but what ComfyUI says without Kleinod, too."""
        said = [text for text in self.studio.complaints if not any(noise in text for noise in CORE_NOISE)]
        assert not said, "\n".join(said)

    def _check_rows(self, node: dict) -> str:
        expected = [
            {"file": row.file, "weight": row.weight, "stage": row.stage, "enabled": row.enabled}
            for row in parse_rows(node["values"]["rows"]).rows
        ]
        return "" if node["rows"] == expected else f"rows {node['rows']} instead of {expected}"

    def expected_line(self, node: dict, **others: Any) -> str:
        """The beginning of the line of cost for the values that the node sends."""
        asked = {name: node["values"][name] for name in ASKED if name in node["values"]} | others
        query = "&".join(f"{name}={value}" for name, value in asked.items())
        told = self.client.get_json(f"/kleinod/estimate/{REMOTE[node['type']]}?{query}")
        return f"about ${told['usd']:.4f}"

    def _check_line(self, node: dict, references: int) -> str:
        line = self.expected_line(node, references=references)
        return "" if node["line"].startswith(line) else f"line {node['line']!r} instead of {line!r}"

    def _check_preset(self, node: dict) -> str:
        preset = PRESETS.get(node["values"]["preset"])
        shown = {name: node["values"][name] for name in FIELDS}
        if preset and shown != {name: getattr(preset, name) for name in shown}:
            return f"{node['values']['preset']} shows {shown}"
        return ""
