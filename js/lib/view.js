// @ts-check
/** How a graph is laid before a user: pure arithmetic, no side effects on import. */

/** @typedef {[number, number, number, number]} Box left, top, width, height */

/** The page's own parts over the canvas, in pixels: tabs and Run, the sidebar, and the minimap in its corner. */
const TOP = 90;
const LEFT = 72;
const EDGE = 16;
const MINIMAP = 285;
/** Below it neither renderer draws text: 8 of 14 pixels, and a little. */
export const LEGIBLE = 0.575;

/** @param {Box[]} boxes @returns {Box} the smallest around all of them */
export function boundsOf(boxes) {
  const left = Math.min(...boxes.map((box) => box[0]));
  const top = Math.min(...boxes.map((box) => box[1]));
  const right = Math.max(...boxes.map((box) => box[0] + box[2]));
  const bottom = Math.max(...boxes.map((box) => box[1] + box[3]));
  return [left, top, right - left, bottom - top];
}

/**
 * The view in which all of a graph can be read: beside the minimap if that is large enough, else on the whole page,
 * and where even that is too small, the graph's beginning.
 * @param {Box} graph in canvas units
 * @param {{width: number, height: number}} page in pixels
 * @returns {{scale: number, offset: [number, number]}} as the canvas keeps it
 */
export function planView(graph, page) {
  const [left, top, width, height] = graph;
  const high = page.height - TOP - EDGE;
  const [beside, whole] = [MINIMAP, EDGE].map((right) => {
    const wide = page.width - LEFT - right;
    return { wide, scale: Math.min(wide / width, high / height, 1) };
  });
  const { wide, scale: fitting } = beside.scale >= LEGIBLE ? beside : whole;
  const scale = Math.max(fitting, LEGIBLE);
  // In the middle where there is room; from the upper left corner on where there is none.
  const free = [Math.max(0, wide - width * scale) / 2, Math.max(0, high - height * scale) / 2];
  return { scale, offset: [(LEFT + free[0]) / scale - left, (TOP + free[1]) / scale - top] };
}
