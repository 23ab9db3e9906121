// @ts-check
/**
 * "Copy as Runware JSON" and "Paste Runware JSON" on Klein Sampler and Klein Runware: in the node's menu, and as
 * commands for the selected node.
 */
import { app } from "../../scripts/app.js";
import { buildRequest, planPaste, readRequest } from "./lib/runware_request.js";
import { wordsOf } from "./lib/server.js";
import { addNode, changeGraph, findDeciding, findWidget } from "./lib/widgets.js";

/** @import {GraphNode} from "../../scripts/app.js" */

/** @type {Record<string, "runware" | "sampler">} */
const NODES = { KleinodRunware: "runware", KleinodSampler: "sampler" };
const GAP = 40;
const IDLE = new Set([2, 4]); // a node's modes where it is muted or bypassed

/** @param {GraphNode} node undefined for nodes that have no part in this */
const kindOf = (node) => NODES[node.comfyClass ?? ""];

/** @param {"success" | "warn" | "error"} severity @param {string} detail */
const tell = (severity, detail) =>
  app.extensionManager.toast.add({ severity, summary: "Runware JSON", detail, life: 6000 });

/** @param {GraphNode} node @returns {Record<string, any>} */
const readWidgets = (node) =>
  Object.fromEntries((node.widgets ?? []).map((own) => [own.name, (findDeciding(node, own.name) ?? own).value]));

/**
 * Sets widgets as a user would: in range, and with their callbacks.
 * @param {GraphNode} node @param {Record<string, any>} values
 */
function writeWidgets(node, values) {
  for (const [name, value] of Object.entries(values)) {
    if (!findWidget(node, name)) continue;
    const widget = findDeciding(node, name);
    if (!widget) {
      tell("warn", `${name} comes from a connected node and was left out.`);
      continue;
    }
    const choices = widget.options?.values;
    if (Array.isArray(choices) && !choices.includes(value)) {
      tell("warn", `${name}: '${value}' is not among the choices and was left out.`);
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
  warnings.push(`${name} was disconnected: the request has none.`);
}

/** @param {GraphNode} node */
function collect(node) {
  const kind = kindOf(node);
  /** @param {string} name @param {string} type */
  const values = (name, type) => {
    const source = findSource(node, name);
    return source?.comfyClass === type && !IDLE.has(source.mode) ? readWidgets(source) : null;
  };
  const own = readWidgets(node);
  if (kind === "runware") {
    return {
      runware: own,
      acceleration: values("acceleration", "KleinodAcceleration"),
      rows: values("loras", "KleinodLoraStack")?.rows,
      face: values("face_refinement", "KleinodFaceSettings"),
    };
  }
  const prompt = values("positive", "KleinodPrompt") ?? { positive: "", negative: "" };
  return {
    sampler: own,
    prompt,
    acceleration: values("acceleration_settings", "KleinodAcceleration"),
    rows: values("model", "KleinodLoraStack")?.rows,
  };
}

/** @param {GraphNode} node */
async function copyRequest(node) {
  const request = buildRequest(collect(node), crypto.randomUUID?.() ?? "");
  try {
    await navigator.clipboard.writeText(JSON.stringify(request, null, 2));
    tell("success", "The request is on the clipboard.");
  } catch {
    await app.extensionManager.dialog.prompt({
      title: "Runware JSON",
      message: "The browser keeps the clipboard closed. Copy the request from here.",
      defaultValue: JSON.stringify(request),
    });
  }
}

/** @param {GraphNode} node @param {string} text */
export function pasteRequest(node, text) {
  const plan = planPaste(readRequest(text));
  changeGraph(() => fillIn(node, plan));
  node.graph?.setDirtyCanvas(true, true);
  for (const warning of plan.warnings) tell("warn", warning);
  if (!plan.warnings.length) tell("success", "The request is in the node.");
}

/**
 * Into the node and the ones on its inputs; what finds no place is a warning of the plan.
 * @param {GraphNode} node @param {ReturnType<typeof planPaste>} plan
 */
function fillIn(node, plan) {
  /** @param {string} name @param {Record<string, any> | null} values @param {[string, string, number]} source */
  const fillSource = (name, values, source) => {
    if (values) writeWidgets(ensureSource(node, name, ...source), values);
    else unplug(node, name, plan.warnings);
  };
  const kind = kindOf(node);
  writeWidgets(node, plan[kind]);
  if (kind === "runware") {
    fillSource("acceleration", plan.acceleration, ["KleinodAcceleration", "acceleration", 0]);
    fillSource("loras", plan.rows ? { rows: plan.rows } : null, ["KleinodLoraStack", "loras", 1]);
    fillSource("face_refinement", plan.face, ["KleinodFaceSettings", "settings", 2]);
  } else {
    const prompt = findSource(node, "positive");
    if (prompt?.comfyClass === "KleinodPrompt") writeWidgets(prompt, plan.prompt);
    else plan.warnings.push("The prompt was left out: no Klein Prompt is connected to positive.");
    fillSource("acceleration_settings", plan.acceleration, ["KleinodAcceleration", "acceleration", 0]);
    if (plan.rows) plan.warnings.push("LoRAs by AIR id were left out: they exist at Runware only.");
    if (plan.face) plan.warnings.push("Face settings were left out: connect Klein Face Refiner after the sampler.");
  }
}

/** @param {GraphNode} node */
async function askAndPaste(node) {
  /** @type {string | null} */
  let text = await navigator.clipboard.readText().catch(() => "");
  try {
    readRequest(text);
  } catch {
    text = await app.extensionManager.dialog.prompt({
      title: "Runware JSON",
      message: "Paste a Runware imageInference request.",
      defaultValue: "",
    });
  }
  if (!text?.trim()) return;
  try {
    pasteRequest(node, text);
  } catch (error) {
    tell("error", wordsOf(error));
  }
}

/** @param {(node: GraphNode) => void} work */
const onSelected = (work) => () => {
  const node = [...app.canvas.selectedItems].find(kindOf);
  if (node) work(node);
  else tell("warn", "Select a Klein Sampler or a Klein Runware first.");
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
    if (!kindOf(node)) return [];
    return [
      { content: "Copy as Runware JSON", callback: () => copyRequest(node) },
      { content: "Paste Runware JSON", callback: () => askAndPaste(node) },
    ];
  },
});
