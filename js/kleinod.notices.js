// @ts-check
/**
 * What a node says stands on it until it runs again: what came of a run, and why it stopped. Newer pages (1.58) take
 * the texts of all nodes away when their run ends; what one of ours said last comes back at once.
 */
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { saySentences } from "./lib/sentences.js";
import { findWidget, follow, isOurs, TEXT_WIDGET } from "./lib/widgets.js";

/** @import {GraphNode, Widget} from "../../scripts/app.js" */

const EVENT = "progress_text";
/** Widgets that are watched already. @type {WeakSet<Widget>} */
const WATCHED = new WeakSet();

/** @typedef {Widget & {onRemove?: () => void}} Removable */

/** The number of the node that stopped the last run; "" where none did. */
let stopped = "";

/**
 * Nodes 2.0 makes a node with a text and pictures as high as if it were twice as full: it would lie over the next one.
 * There only the reason why a run stopped is worth it. The pictures tell the rest.
 * @param {GraphNode} node
 */
function showsPictures(node) {
  const inside = node.graph && node.graph !== app.rootGraph;
  const outputs = app.nodeOutputs[inside ? `${node.graph?.id}:${node.id}` : String(node.id)];
  return LiteGraph.vueNodesMode && Boolean(outputs?.images?.length);
}

/**
 * Which node the page shows a text on. It knows a node by its number inside all the subgraphs around it, with colons,
 * and shows the text only where the graph on the screen has the node.
 * @param {{nodeId: string, text: string}} said
 */
function findNode({ nodeId, text }) {
  const number = String(nodeId).split(":").at(-1);
  const nodes = /** @type {GraphNode[]} */ (app.canvas.graph?.nodes ?? []);
  const ours = nodes.filter((node) => isOurs(node) && String(node.id) === number);
  const shown = [text, saySentences(text)]; // in the page's language, where kleinod.sentences was there before
  return ours.find((node) => shown.includes(findWidget(node, TEXT_WIDGET)?.value));
}

/** Shows it again when the page takes it away from a node that stays. @param {{nodeId: string, text: string}} said */
function keep({ nodeId, text }) {
  const node = findNode({ nodeId, text });
  const widget = /** @type {Removable | undefined} */ (node && findWidget(node, TEXT_WIDGET));
  if (!node || !widget || WATCHED.has(widget)) return;
  WATCHED.add(widget);
  follow(widget, "onRemove", () => {
    const last = String(widget.value ?? "");
    setTimeout(() => {
      const stays = node.graph && node.graph === app.canvas.graph && !findWidget(node, TEXT_WIDGET);
      if (stays && last.trim() && (stopped === nodeId || !showsPictures(node))) api.dispatchCustomEvent(EVENT, { nodeId, text: last });
    });
  });
}

app.registerExtension({
  name: "kleinod.notices",
  setup() {
    api.addEventListener("execution_start", () => (stopped = ""));
    api.addEventListener("execution_error", ({ detail }) => (stopped = String(detail.node_id)));
    // Once the page has shown it, and before it hears that the run is over: that may be its next message.
    api.addEventListener(EVENT, ({ detail }) => queueMicrotask(() => keep(detail)));
  },
});
