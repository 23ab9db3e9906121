// @ts-check
/**
 * Klein Loader's button *Use my files*, and samplers that a user has just made, Compare and Calibrate among them: their
 * size, steps and guidance follow the loader until the user sets them. A graph from a file keeps what it says.
 */
import { app } from "../../scripts/app.js";
import { make } from "./lib/elements.js";
import { LOADER, findLoader, isSampler, readSettings, useOwnFiles, writeValues } from "./lib/own_files.js";
import { wordsOf } from "./lib/server.js";
import { addElement, findWidget, follow } from "./lib/widgets.js";
import { say } from "./lib/words.js";

/** @import {GraphNode} from "../../scripts/app.js" */

const FOLLOWED = ["width", "height", "steps", "guidance"];
const BUTTON_HEIGHT = 30;

/** Samplers that follow, and which of their widgets still do. @type {Map<GraphNode, Set<string>>} */
const following = new Map();
let writing = false;

/** @param {GraphNode} node */
function addButton(node) {
  const press = async () => {
    button.disabled = true;
    try {
      await useOwnFiles(node, button);
    } catch (error) {
      app.extensionManager.toast.add({ severity: "error", summary: say("Use my files"), detail: wordsOf(error), life: 6000 });
    } finally {
      button.disabled = false;
    }
  };
  const button = make(
    "button",
    {
      type: "button",
      className: "kleinod-own-files",
      title: say("Picks the Klein files in your model folders and sets size, steps and guidance of the samplers behind."),
      onclick: press,
      style: {
        width: "100%",
        height: "24px",
        border: "none",
        borderRadius: "8px",
        cursor: "pointer",
        font: "12px Inter, Arial, sans-serif",
        background: "var(--component-node-widget-background, var(--comfy-input-bg, #222))",
        color: "var(--component-node-foreground, var(--input-text, #ddd))",
      },
    },
    say("Use my files"),
  );
  const root = make("div", { style: { width: "100%", padding: "0 12px", boxSizing: "border-box" } }, button);
  const height = () => BUTTON_HEIGHT;
  addElement(node, "kleinod_own_files", root, { least: height, most: height });
}

/** Brings every following sampler to its loader's model. */
async function settle() {
  const asked = waiting;
  for (const [sampler, names] of following) {
    const loader = sampler.graph && findLoader(sampler);
    if (!loader) continue;
    const settings = await readSettings(loader).catch(() => ({}));
    if (asked !== waiting) return; // for another model
    const values = Object.fromEntries(Object.entries(settings).filter(([name]) => names.has(name)));
    writing = true;
    try {
      writeValues(sampler, values);
    } finally {
      writing = false;
    }
  }
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let waiting;
function settleSoon() {
  if (!following.size) return;
  clearTimeout(waiting);
  waiting = setTimeout(settle, 50); // a row of links is made and a node is placed before
}

/** @param {GraphNode} node */
function startFollowing(node) {
  const names = new Set(FOLLOWED);
  following.set(node, names);
  follow(node, "onConfigure", () => following.delete(node)); // it comes from a file, a copy or the history
  follow(node, "onRemoved", () => following.delete(node));
  for (const name of FOLLOWED) {
    const widget = findWidget(node, name);
    if (widget) follow(widget, "callback", () => !writing && names.delete(name));
  }
}

app.registerExtension({
  name: "kleinod.loader",
  nodeCreated(node) {
    follow(node, "onConnectionsChange", settleSoon);
    if (node.comfyClass === LOADER) {
      addButton(node);
      for (const name of ["diffusion_model", "variant"]) {
        const widget = findWidget(node, name);
        if (widget) follow(widget, "callback", settleSoon);
      }
    }
    if (isSampler(node)) startFollowing(node);
  },
});
