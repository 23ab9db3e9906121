// @ts-check
/**
 * "Copy as Runware JSON" and "Paste Runware JSON" on Klein Sampler and Klein Runware: in the node's menu, and as
 * commands for the selected node. The server reads and writes the requests; here is only what becomes of the graph.
 */
import { app } from "../../scripts/app.js";
import { saySentences } from "./lib/sentences.js";
import { call, wordsOf } from "./lib/server.js";
import { addNode, changeGraph, findDeciding, findWidget } from "./lib/widgets.js";
import { say } from "./lib/words.js";

/** @import {GraphNode} from "../../scripts/app.js" */

/**
 * What nodes/service/routes.py makes of a request.
 * @typedef {{own: Record<string, any>, prompt: Record<string, any>, acceleration: Record<string, any> | null,
 *   rows: string | null, faces: Record<string, any> | null, options: Record<string, any>, needs_options: boolean,
 *   pictures: string[], notes: string[]}} Paste
 */

const RUNWARE = "KleinodRunware";
const NODES = [RUNWARE, "KleinodSampler"];
const OPTIONS = "KleinodRunwareOptions";
const GAP = 40;
const MOST_LETTERS = 60; // of a clipboard that holds something else
const READ_MILLISECONDS = 15000; // for what was left out: several sentences at once
const SOCKET_MILLISECONDS = 30000; // until a node that grows has its next socket

/** @param {GraphNode} node undefined for nodes that have no part in this */
const takesPart = (node) => NODES.includes(node.comfyClass ?? "");

/** @param {"success" | "warn" | "error"} severity @param {string} detail */
const tell = (severity, detail) =>
  app.extensionManager.toast.add({ severity, summary: "Runware JSON", detail, life: READ_MILLISECONDS });

/**
 * What was done and all that was left out, in one notice: several would cover the graph they are about.
 * @param {string} done @param {string[]} notes
 */
const report = (done, notes) =>
  tell(notes.length ? "warn" : "success", [done, ...notes.map(saySentences)].join(" "));

/**
 * Sets widgets as a user would, with their callbacks; what finds no place is a note.
 * @param {GraphNode} node @param {Record<string, any>} values @param {string[]} notes
 */
function writeWidgets(node, values, notes) {
  for (const [name, value] of Object.entries(values)) {
    if (!findWidget(node, name)) continue;
    const widget = findDeciding(node, name);
    if (!widget) {
      notes.push(say("%1 comes from a connected node and was left out.", name));
      continue;
    }
    const choices = widget.options?.values;
    if (Array.isArray(choices) && !choices.includes(value)) {
      notes.push(say("%1: '%2' is not among the choices and was left out.", name, value));
      continue;
    }
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
  }
}

/** The node that feeds an input, seen through reroutes. @param {GraphNode} node @param {string} name */
function findSource(node, name) {
  const slot = node.inputs?.findIndex((input) => input.name === name) ?? -1;
  return slot < 0 ? null : node.getInputNode(slot);
}

/**
 * The node of `type` on an input: the one there, or a new one left of `node`.
 * @param {GraphNode} node @param {string} name @param {string} type @param {string} output @param {number} row
 */
function ensureSource(node, name, type, output, row) {
  const there = findSource(node, name);
  if (there?.comfyClass === type) return there;
  const [x, y] = node.pos;
  const made = addNode(node.graph, type, (size) => [x - size[0] - GAP, y + row * (size[1] + GAP)]);
  made.connect(
    made.outputs.findIndex((slot) => slot.name === output),
    node,
    node.inputs.findIndex((slot) => slot.name === name),
  );
  return made;
}

/**
 * What is connected would be sent although the request has none.
 * @param {GraphNode} node @param {string} name @param {string[]} warnings
 */
function unplug(node, name, warnings) {
  const slot = node.inputs.findIndex((input) => input.name === name);
  if (slot < 0 || !node.isInputConnected(slot)) return;
  node.disconnectInput(slot);
  warnings.push(say("%1 was disconnected: the request has none.", name));
}

/** The number that the node has in what is queued. @param {GraphNode} node @returns {string} */
function findQueuedId(node) {
  const graphs = [app.rootGraph, ...app.rootGraph.subgraphs.values()];
  const nodes = /** @type {any[]} */ (graphs.flatMap((graph) => graph.nodes));
  const host = node.graph === app.rootGraph ? undefined : nodes.find((one) => one.subgraph === node.graph);
  return host ? `${findQueuedId(host)}:${node.id}` : String(node.id);
}

/** @param {GraphNode} node */
async function copyRequest(node) {
  try {
    const { output } = await app.graphToPrompt();
    const { text, notes } = await call("runware/copy", "POST", { prompt: output, node: findQueuedId(node) });
    await offer(text, notes);
  } catch (error) {
    tell("error", wordsOf(error));
  }
}

/** @param {string} text @param {string[]} notes */
async function offer(text, notes) {
  try {
    await navigator.clipboard.writeText(text);
    report(say("The request is on the clipboard."), notes);
  } catch {
    if (notes.length) tell("warn", notes.map(saySentences).join(" "));
    await app.extensionManager.dialog.prompt({
      title: "Runware JSON",
      message: say("The browser keeps the clipboard closed. Copy the request from here."),
      defaultValue: text,
    });
  }
}

/** @param {GraphNode} node @param {string} text */
export async function pasteRequest(node, text) {
  /** @type {Paste} */
  const paste = await call("runware/paste", "POST", { text, node: node.comfyClass });
  await changeGraph(() => fillIn(node, paste));
  node.graph?.setDirtyCanvas(true, true);
  report(say("The request is in the node."), paste.notes);
}

/**
 * Into the node and the ones on its inputs; what finds no place is a note.
 * @param {GraphNode} node @param {Paste} paste
 */
async function fillIn(node, paste) {
  /** @param {string} name @param {Record<string, any> | null} values @param {[string, string, number]} source */
  const fillSource = (name, values, source) => {
    if (values) writeWidgets(ensureSource(node, name, ...source), values, paste.notes);
    else unplug(node, name, paste.notes);
  };
  writeWidgets(node, paste.own, paste.notes);
  if (node.comfyClass !== RUNWARE) {
    const prompt = findSource(node, "positive");
    fillSource("acceleration_settings", paste.acceleration, ["KleinodAcceleration", "acceleration", 0]);
    if (prompt?.comfyClass !== "KleinodPrompt") {
      paste.notes.push(say("The prompt was left out: no Klein Prompt is connected to positive."));
      return;
    }
    writeWidgets(prompt, paste.prompt, paste.notes);
    await fillPictures(prompt, paste);
    return;
  }
  fillSource("acceleration", paste.acceleration, ["KleinodAcceleration", "acceleration", 0]);
  fillSource("loras", paste.rows === null ? null : { rows: paste.rows }, ["KleinodLoraStack", "loras", 1]);
  fillSource("face_refinement", paste.faces, ["KleinodFaceSettings", "settings", 2]);
  if (paste.needs_options || findSource(node, "options")?.comfyClass === OPTIONS)
    writeWidgets(ensureSource(node, "options", OPTIONS, "options", 3), paste.options, paste.notes);
  unplug(node, "images", paste.notes);
  await fillPictures(node, paste);
}

/**
 * Pictures of the request, each from a Load Image, through a Klein References that leaves their size alone.
 * @param {GraphNode} node @param {Paste} paste
 */
async function fillPictures(node, paste) {
  if (paste.pictures.length === 0) {
    unplug(node, "references", paste.notes);
    return;
  }
  const [x, y] = node.pos;
  const holder = addNode(node.graph, "KleinodReferences", (size) => [x - size[0] - GAP, y]);
  writeWidgets(holder, { size: "native" }, paste.notes);
  const slot = (/** @type {string} */ name) => holder.inputs.findIndex((input) => input.name === name);
  for (const [index, name] of paste.pictures.entries()) {
    const picture = addNode(node.graph, "LoadImage", (size) => [
      holder.pos[0] - size[0] - GAP,
      y + index * (size[1] + GAP),
    ]);
    const widget = findWidget(picture, "image");
    const choices = widget?.options?.values;
    if (Array.isArray(choices) && !choices.includes(name)) choices.push(name);
    writeWidgets(picture, { image: name }, paste.notes);
    const socket = `images.image_${index + 1}`;
    const ends = performance.now() + SOCKET_MILLISECONDS;
    while (slot(socket) < 0 && performance.now() < ends) await new Promise((next) => requestAnimationFrame(next));
    picture.connect(0, holder, slot(socket));
  }
  holder.connect(0, node, node.inputs.findIndex((input) => input.name === "references"));
}

/** The beginning of a text, on one line. @param {string} text */
function shorten(text) {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > MOST_LETTERS ? `${line.slice(0, MOST_LETTERS)}...` : line;
}

/** @param {GraphNode} node */
async function askAndPaste(node) {
  /** @type {string | null} null where the browser does not let a page read it */
  let text = await navigator.clipboard.readText().catch(() => null);
  if (!text?.trim().match(/^[[{]/)) {
    const found =
      text === null
        ? say("The browser keeps the clipboard closed.")
        : text.trim() === ""
          ? say("The clipboard holds no text.")
          : say("The clipboard holds no JSON, but: %1", shorten(text));
    text = await app.extensionManager.dialog.prompt({
      title: "Runware JSON",
      message: [found, say("Paste a Runware imageInference request here.")].join(" "),
      defaultValue: "",
    });
  }
  if (!text?.trim()) return;
  try {
    await pasteRequest(node, text);
  } catch (error) {
    tell("error", wordsOf(error));
  }
}

/** @param {(node: GraphNode) => void} work */
const onSelected = (work) => () => {
  const node = [...app.canvas.selectedItems].find(takesPart);
  if (node) work(node);
  else tell("warn", say("Select a Klein Sampler or a Klein Runware first."));
};

app.registerExtension({
  name: "kleinod.request",
  commands: [
    { id: "Kleinod.CopyRunwareJson", label: "Copy as Runware JSON", icon: "pi pi-copy", function: onSelected(copyRequest) },
    {
      id: "Kleinod.PasteRunwareJson",
      label: "Paste Runware JSON",
      icon: "pi pi-clipboard",
      function: onSelected(askAndPaste),
    },
  ],
  getNodeMenuItems(node) {
    if (!takesPart(node)) return [];
    return [
      { content: say("Copy as Runware JSON"), callback: () => copyRequest(node) },
      { content: say("Paste Runware JSON"), callback: () => askAndPaste(node) },
    ];
  },
});
