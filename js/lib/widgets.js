// @ts-check
/** What Kleinod's scripts do to a node of the graph. No side effects on import. */

/**
 * A page element on a node, below its widgets: neither saved nor sent, and last, so the others keep their places in
 * saved files.
 * @param {any} node
 * @param {string} name
 * @param {HTMLElement} element
 * @param {{least: () => number, most?: () => number, hideOnZoom?: boolean}} options heights in pixels; hideOnZoom: not
 *   drawn where it would be too small to read
 * @returns {any} the widget
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
  return widget;
}

/**
 * Does `work` after each call of a widget's callback or a node's hook, whose own work and result stay as they are.
 * @param {any} owner
 * @param {string} name
 * @param {(...given: any[]) => void} work gets the arguments of the call
 */
export function follow(owner, name, work) {
  const before = owner[name];
  owner[name] = function (...given) {
    const result = before?.apply(this, given);
    work(...given);
    return result;
  };
}

/** @param {any} node @param {string} name */
export function findWidget(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
}
