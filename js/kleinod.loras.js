// @ts-check
/**
 * Klein LoRA Stack's rows, drawn as page elements over the node's `rows` text.
 *
 * The text stays the only thing stored: it is what is saved, copied, undone and sent, and what the node shows where
 * this script does not run. The rows are a view of it, so they cannot disagree with it.
 */
import { app } from "../../scripts/app.js";
import { LoraRows } from "./lib/lora_view.js";

const NODE = "KleinodLoraStack";
const SETTING = "Kleinod.Loras.Rows";
const PLAIN = ["rows", "lora", "weight", "stage"]; // what the rows stand for

/**
 * Once the page has drawn the graph (see `takePlace`); on a busy machine that can take more than a moment.
 * @param {LoraRows} view
 */
function settle(view) {
  for (const wait of [0, 100, 500]) setTimeout(() => view.takePlace(), wait);
}

/** @param {any} node */
function addRows(node) {
  const plain = Object.fromEntries(PLAIN.map((name) => [name, node.widgets?.find((w) => w.name === name)]));
  if (Object.values(plain).some((widget) => !widget)) return;
  const view = new LoraRows(node, plain);
  // Classic only. Nodes 2.0 would hide the copies, too, that a subgraph shows on its outside: there the style sheet does it.
  for (const widget of Object.values(plain)) widget.hidden = true;
  const widget = node.addDOMWidget("kleinod_rows", "kleinod-rows", view.root, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => view.height,
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false; // neither saved nor sent, and last, so the others keep their places in saved files
  node.setSize([Math.max(node.size[0], 460), node.computeSize()[1]]);
  for (const hook of ["onConfigure", "onConnectionsChange"]) {
    const before = node[hook];
    node[hook] = function (...given) {
      const result = before?.apply(this, given);
      view.render();
      settle(view);
      return result;
    };
  }
  const removed = node.onRemoved;
  node.onRemoved = function (...given) {
    view.close();
    return removed?.apply(this, given);
  };
  for (const name of PLAIN) {
    const before = plain[name].callback;
    plain[name].callback = function (...given) {
      const result = before?.apply(this, given);
      view.render();
      return result;
    };
  }
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
    const href = new URL("./kleinod.loras.css", import.meta.url).href;
    document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href }));
  },
  nodeCreated(node) {
    const wanted = app.extensionManager?.setting?.get?.(SETTING) ?? true;
    if (node.comfyClass === NODE && wanted) addRows(node);
  },
});
