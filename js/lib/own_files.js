// @ts-check
/**
 * Klein Loader and the nodes it feeds: the user's own files picked as a set, and size, steps and guidance set with
 * them. The server knows the files (nodes/model/own_files.py). No side effects on import.
 */
import { app } from "../../../scripts/app.js";
import { make, openPanel } from "./elements.js";
import { call } from "./server.js";
import { changeGraph, findDeciding, findSource, findWidget, isOurs } from "./widgets.js";
import { say } from "./words.js";

/** @import {GraphNode} from "../../../scripts/app.js" */
/** @typedef {Record<string, string | number>} Values widgets by name */
/** @typedef {{name: string, folder: string, url: string, gigabytes: number}} Missing */
/**
 * @typedef {{ready: boolean, title: string, loader: Values, sampler: Values, missing: Missing[], reason: string}} OwnFiles
 */

export const LOADER = "KleinodLoader";
const PICKERS = ["diffusion_model", "variant"];
const SHOWN = 9000; // milliseconds of a message

/** What the server is asked with. @param {GraphNode} loader */
function queryOf(loader) {
  const picked = PICKERS.map((name) => [name, String(findWidget(loader, name)?.value ?? "")]);
  return new URLSearchParams(Object.fromEntries(picked)).toString();
}

/** Size, steps and guidance for the loader's model; {} where it tells nothing. @param {GraphNode} loader @returns {Promise<Values>} */
export const readSettings = async (loader) => (await call(`model/settings?${queryOf(loader)}`)).sampler;

/**
 * The loader whose model reaches a node, through whatever passes a model on, in and out of subgraphs.
 * @param {GraphNode} node
 * @returns {GraphNode | null}
 */
export function findLoader(node) {
  if (node.comfyClass === LOADER) return node;
  const slots = node.inputs ?? [];
  const slot = slots.findIndex((input) => input.type === "MODEL" || (slots.length === 1 && input.type === "*"));
  const source = slot < 0 ? null : findSource(node, slot);
  return source ? findLoader(source) : null; // graphs have no rings
}

/** Whether a node of ours samples a model at a size of its own. @param {GraphNode} node */
export function isSampler(node) {
  const takesModel = node.inputs?.some((input) => input.type === "MODEL");
  return isOurs(node) && Boolean(takesModel) && ["width", "height", "steps"].every((name) => findWidget(node, name));
}

/** Those that sample the loader's model. @param {GraphNode} loader */
function findSamplers(loader) {
  const graphs = [app.rootGraph, ...app.rootGraph.subgraphs.values()];
  const nodes = /** @type {GraphNode[]} */ (graphs.flatMap((graph) => graph.nodes));
  return nodes.filter((node) => isSampler(node) && findLoader(node) === loader);
}

/**
 * Sets widgets as a user would, or what decides them; what only a run can tell stays.
 * @param {GraphNode} node @param {Values} values
 */
export function writeValues(node, values) {
  for (const [name, value] of Object.entries(values)) {
    const widget = findWidget(node, name) && findDeciding(node, name);
    if (!widget || widget.value === value) continue;
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
  }
  node.setDirtyCanvas(true, true);
}

/**
 * Picks the user's files on a loader and sets the samplers behind it.
 * @param {GraphNode} loader
 * @param {HTMLElement} [anchor] where to say what is missing; without one nothing is said, and nothing done, then
 */
export async function useOwnFiles(loader, anchor) {
  /** @type {OwnFiles} */
  const found = await call(`model/files?${queryOf(loader)}`);
  if (!found.ready) {
    if (anchor) openPanel(anchor, makeMissing(found));
    return;
  }
  const choices = findWidget(loader, "diffusion_model")?.options?.values;
  // Files that came after the page was loaded; R does the same.
  if (Array.isArray(choices) && !choices.includes(found.loader.diffusion_model)) await app.refreshComboInNodes();
  const samplers = findSamplers(loader);
  changeGraph(() => {
    writeValues(loader, found.loader);
    for (const sampler of samplers) writeValues(sampler, found.sampler);
  });
  const { width, height, steps, guidance } = found.sampler;
  const picked = say("%1 is picked, with %2 and %3.", found.loader.diffusion_model, found.loader.text_encoder, found.loader.vae);
  const set = samplers.length ? say("Set to %1 x %2, %3 steps, guidance %4.", width, height, steps, guidance) : "";
  app.extensionManager.toast.add({ severity: "success", summary: found.title, detail: `${picked} ${set}`.trim(), life: SHOWN });
}

/** What is missing, where it goes and where it is. @param {OwnFiles} found */
function makeMissing(found) {
  const rows = found.missing.map(({ name, folder, url, gigabytes }) => {
    const link = make("a", { href: url, target: "_blank", rel: "noopener", style: { color: "var(--p-primary-color, #6cf)" } }, name);
    const place = say("%1 GB, into models/%2", gigabytes.toFixed(1), folder);
    return make("li", { style: { margin: "6px 0" } }, link, make("div", { style: { opacity: "0.75" } }, place));
  });
  /** @type {HTMLElement[]} */
  const parts = found.reason ? [make("p", {}, found.reason)] : [];
  if (rows.length) {
    parts.push(make("p", {}, say("For real pictures these files are missing:")));
    parts.push(make("ul", { style: { margin: "0", paddingLeft: "18px" } }, ...rows));
  }
  parts.push(make("p", {}, say("Put them there and press the button again: it picks them and sets size, steps and guidance.")));
  return make("div", { className: "kleinod-missing", style: { maxWidth: "420px", padding: "4px 12px", fontSize: "13px" } }, ...parts);
}
