// @ts-check
/**
 * Klein LoRA Stack's rows, drawn as page elements over the node's `rows` text.
 *
 * The text stays the only thing stored: it is what is saved, copied, undone and sent, and what the node shows where
 * this script does not run. The rows are a view of it, so they cannot disagree with it.
 */
import { app } from "../../scripts/app.js";
import { addStyles } from "./lib/elements.js";
import { LoraRows, MARGIN } from "./lib/lora_view.js";
import { addElement, findWidget, follow, hideOnCanvas } from "./lib/widgets.js";

/** @import {GraphNode} from "../../scripts/app.js" */

const NODE = "KleinodLoraStack";
const SETTING = "Kleinod.Loras.Rows";
const PLAIN = /** @type {const} */ (["rows", "lora", "weight", "stage"]); // what the rows stand for

/** @param {GraphNode} node */
function addRows(node) {
  const [rows, lora, weight, stage] = PLAIN.map((name) => findWidget(node, name));
  if (!rows || !lora || !weight || !stage) return;
  const plain = { rows, lora, weight, stage };
  const view = new LoraRows(node, plain);
  for (const widget of Object.values(plain)) hideOnCanvas(widget);
  addElement(node, "kleinod_rows", view.root, { least: () => view.height, margin: MARGIN });
  node.setSize([Math.max(node.size[0], 460), node.computeSize()[1]]);
  for (const hook of /** @type {const} */ (["onConfigure", "onConnectionsChange"])) follow(node, hook, () => view.render());
  follow(node, "onRemoved", () => view.close());
  for (const widget of Object.values(plain)) follow(widget, "callback", () => view.render());
  view.render();
}

app.registerExtension({
  name: "kleinod.loras",
  settings: [
    {
      id: SETTING,
      category: ["Kleinod", "LoRAs", "Rows"],
      name: "Rows on Klein LoRA Stack",
      tooltip: "Off: the node shows its plain text. Takes effect when the page is loaded again.",
      type: "boolean",
      defaultValue: true,
    },
  ],
  init() {
    addStyles("kleinod.loras.css");
  },
  nodeCreated(node) {
    const wanted = app.extensionManager?.setting?.get?.(SETTING) ?? true;
    if (node.comfyClass === NODE && wanted) addRows(node);
  },
});
