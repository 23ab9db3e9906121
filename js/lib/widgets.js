// @ts-check
/** What Kleinod's scripts do to nodes of the graph. No side effects on import. */

/** @import {Graph, GraphNode, Widget} from "../../../scripts/app.js" */

/**
 * A page element on a node, below its widgets: neither saved nor sent, and last, so the others keep their places in
 * saved files.
 * @param {GraphNode} node
 * @param {string} name
 * @param {HTMLElement} element
 * @param {{least: () => number, most?: () => number, hideOnZoom?: boolean}} options heights in pixels; hideOnZoom: not
 *   drawn where it would be too small to read
 */
export function addElement(node, name, element, { least, most, hideOnZoom = false }) {
  const widget = node.addDOMWidget(name, name.replaceAll("_", "-"), element, {
    serialize: false,
    hideOnZoom,
    getMinHeight: least,
    ...(most && { getMaxHeight: most }),
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false; // the option keeps it out of what is sent, this out of what is saved
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
 * @param {GraphNode} node
 * @param {string} name
 * @returns {Widget | undefined}
 */
export function findWidget(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
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
