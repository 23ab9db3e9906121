// @ts-check
/** What Kleinod's scripts do to nodes of the graph. No side effects on import. */

import { app } from "../../../scripts/app.js";

/** @import {Graph, GraphNode, Widget} from "../../../scripts/app.js" */

/** The page's own widget for what a server says while a node runs. */
export const TEXT_WIDGET = "$$node-text-preview";

let made = 0;

/** @param {GraphNode | null | undefined} node */
export const isOurs = (node) => Boolean(node?.comfyClass?.startsWith("Kleinod"));

/**
 * A page element on a node, below its widgets: neither saved nor sent, and last, so the others keep their places in
 * saved files.
 *
 * Nodes 2.0 tells widgets apart by their node's number, their name and their type. On a node that comes in the place
 * of another with the same number, as after undoing, it would go on showing the old one's element: so each has a type
 * of its own. And a node too small for its widgets grows when it is loaded, which would be a change of the graph: the
 * first click after undoing, and nothing could be redone.
 * @param {GraphNode} node
 * @param {string} name
 * @param {HTMLElement} element
 * @param {{least: () => number, most?: () => number, margin?: number, hideOnZoom?: boolean}} options pixels; margin: what
 *   the classic renderer takes on all sides from the height asked for; hideOnZoom: not drawn where too small to read
 */
export function addElement(node, name, element, { least, most, margin = 2, hideOnZoom = false }) {
  made += 1;
  const widget = node.addDOMWidget(name, `${name.replaceAll("_", "-")}-${made}`, element, {
    serialize: false,
    margin,
    hideOnZoom,
    getMinHeight: least,
    ...(most && { getMaxHeight: most }),
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false; // the option keeps it out of what is sent, this out of what is saved
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
  node.setDirtyCanvas(true, true);
}

/**
 * Changes the graph as one step of undoing: the page itself looks for changes only after clicks and keys. What takes
 * its time is one step, too.
 * @template Result
 * @param {() => Result} work
 * @returns {Result}
 */
export function changeGraph(work) {
  const done = () => app.canvas.emitAfterChange();
  app.canvas.emitBeforeChange();
  let result;
  try {
    result = work();
  } catch (error) {
    done();
    throw error;
  }
  if (result instanceof Promise) return /** @type {Result} */ (result.finally(done));
  done();
  return result;
}

/**
 * Does `work` after each call of a widget's callback or a node's hook, whose own work and result stay as they are.
 * @template {string} Name
 * @param {{[name in Name]?: (...given: any[]) => any}} owner
 * @param {Name} name
 * @param {(...given: any[]) => void} work gets the arguments of the call
 */
export function follow(owner, name, work) {
  const before = owner[name];
  /** @this {unknown} @param {any[]} given */
  owner[name] = function (...given) {
    const result = before?.apply(this, given);
    work(...given);
    return result;
  };
}

/**
 * Takes a widget out of the classic renderer. Not out of Nodes 2.0, which would hide its copies, too, that a subgraph
 * shows on its outside: there a style sheet has to do it.
 * @param {Widget} widget
 */
export function hideOnCanvas(widget) {
  // Pages from 1.58 on know what to hide in which renderer, and take `hidden` for both.
  const { visibility } = /** @type {{visibility?: {surfaces: Record<string, string>}}} */ (widget);
  if (visibility) visibility.surfaces.canvas = "never";
  else widget.hidden = true;
}

/**
 * @param {GraphNode} node
 * @param {string} name
 * @returns {Widget | undefined}
 */
export function findWidget(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
}

/**
 * The node that ComfyUI keeps results for: "5" in the graph itself, "<id of a subgraph>:5" inside one.
 * @param {string} locator
 */
export function findShown(locator) {
  const cut = locator.lastIndexOf(":");
  const graph = cut < 0 ? app.rootGraph : app.rootGraph.subgraphs.get(locator.slice(0, cut));
  return /** @type {GraphNode | null | undefined} */ (graph?.getNodeById(locator.slice(cut + 1)));
}

const SUBGRAPH_INPUTS = "-10"; // the node number that a subgraph's own inputs have as the origin of a link

/**
 * The link that ends at an input. Not by node.getInputLink, which means another thing on a subgraph's node.
 * @param {GraphNode} node
 * @param {number} slot
 */
function findLink(node, slot) {
  if (slot < 0 || !node.graph || !node.isInputConnected(slot)) return null;
  const ends = (/** @type {{ target_id: unknown, target_slot: number }} */ link) =>
    String(link.target_id) === String(node.id) && link.target_slot === slot;
  return [...node.graph.links.values()].find(ends) ?? null;
}

/**
 * Where an input's value comes in on the outside of its subgraph; null where it comes from inside, or where several
 * nodes show the same subgraph.
 * @param {GraphNode} node
 * @param {number} slot
 * @returns {{host: any, name: string} | null}
 */
export function findOutside(node, slot) {
  const link = findLink(node, slot);
  if (!link || String(link.origin_id) !== SUBGRAPH_INPUTS) return null;
  const graphs = [app.rootGraph, ...app.rootGraph.subgraphs.values()];
  const nodes = /** @type {any[]} */ (graphs.flatMap((graph) => graph.nodes));
  const hosts = nodes.filter((one) => one.subgraph === node.graph);
  return hosts.length === 1 ? { host: hosts[0], name: hosts[0].subgraph.inputs[link.origin_slot].name } : null;
}

/**
 * The node that an input's value comes from, across the edges of subgraphs both ways; null where nothing is connected,
 * or where several nodes show the same subgraph.
 * @param {GraphNode} node
 * @param {number} slot
 * @returns {GraphNode | null}
 */
export function findSource(node, slot) {
  const link = findLink(node, slot);
  if (!link) return null;
  if (String(link.origin_id) !== SUBGRAPH_INPUTS) return enter(node.graph?.getNodeById(link.origin_id), link.origin_slot);
  const outside = findOutside(node, slot);
  return outside && findInput(outside.host, outside.name);
}

/** @param {GraphNode} host @param {string} name */
const findInput = (host, name) => findSource(host, host.inputs.findIndex((input) => input.name === name));

/** What stands behind an output: the node itself, or where it shows a subgraph, the one inside. @param {any} source @param {number} output */
function enter(source, output) {
  const graph = source?.subgraph;
  if (!graph) return source ?? null;
  const [id] = graph.outputs[output]?.linkIds ?? [];
  const link = id === undefined ? null : graph.links.get(id);
  if (!link) return null;
  if (String(link.origin_id) === SUBGRAPH_INPUTS) return findInput(source, graph.inputs[link.origin_slot].name); // handed through
  return enter(graph.getNodeById(link.origin_id), link.origin_slot);
}

/**
 * The widget whose value a node will get: its own, that of a primitive connected to it (Int, Float, String ...), or where
 * its subgraph shows it on the outside, the one there.
 * undefined where a link brings what only a run can tell.
 * @param {GraphNode} node
 * @param {string} name
 * @returns {Widget | undefined}
 */
export function findDeciding(node, name) {
  const slot = node.inputs?.findIndex((one) => one.widget?.name === name) ?? -1;
  const link = findLink(node, slot);
  if (!link) return findWidget(node, name);
  const source = /** @type {GraphNode | null | undefined} */ (node.graph?.getNodeById(link.origin_id));
  if (source?.comfyClass?.startsWith("Primitive")) return findDeciding(source, "value");
  const outside = findOutside(node, slot);
  return outside ? findDeciding(outside.host, outside.name) : undefined;
}

/**
 * @param {Graph | null} graph
 * @param {string} type
 * @param {(size: Readonly<ArrayLike<number>>) => [number, number]} place its upper left corner
 */
export function addNode(graph, type, place) {
  const node = LiteGraph.createNode(type);
  if (!graph || !node) throw new Error(`The page cannot make a ${type} here.`);
  node.pos = place(node.size);
  graph.add(node);
  return node;
}
