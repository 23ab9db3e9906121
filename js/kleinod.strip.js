// @ts-check
/**
 * Under a Klein Sampler's widgets, after an accelerated run: one cell for each step, filled where it was computed.
 *
 * The server sends the runs with the node's results (`kleinod_runs`). A run without acceleration shows nothing.
 */
import { app } from "../../scripts/app.js";
import { make } from "./lib/elements.js";

const NODE = "KleinodSampler";
const CELLS = {
  C: { words: "computed", background: "#3f8cff" },
  H: { words: "computed for the prompt only, guidance reused", background: "linear-gradient(#3f8cff 50%, #5a5a5a 50%)" },
  R: { words: "reused", background: "#5a5a5a" },
};
const ROW_HEIGHT = 14;
const WORDS_HEIGHT = 20;
const MOST_ROWS = 6; // more results than this are told by the first rows and a number

/**
 * @param {{label: string, pattern: string}} run
 * @returns {HTMLElement}
 */
function makeRow(run) {
  const cells = [...run.pattern].map((kind, index) => {
    const { words, background } = CELLS[kind] ?? CELLS.C;
    const title = `${run.label}, step ${index + 1}: ${words}`;
    return make("span", { title, style: { flex: "1 1 0", minWidth: "1px", borderRadius: "2px", background } });
  });
  const style = { display: "flex", gap: "1px", height: `${ROW_HEIGHT - 4}px`, marginBottom: "4px" };
  const row = make("div", { role: "img", style }, ...cells);
  row.setAttribute("aria-label", `${run.label}: ${run.pattern}`);
  return row;
}

/**
 * A widget of the right height, last on the node, neither saved nor sent. Made only when there is something to draw:
 * an empty page widget is never put on the page, and Nodes 2.0 would keep it for a node that undoing brings back.
 * @param {any} node @param {HTMLElement} root @param {number} height
 */
function addWidget(node, root, height) {
  const widget = node.addDOMWidget("kleinod_strip", "kleinod-strip", root, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => height,
    getMaxHeight: () => height,
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false;
  return widget;
}

/** @param {any} node @param {{label: string, pattern: string, line: string}[]} runs */
function drawStrip(node, runs) {
  const there = node.widgets?.find((widget) => widget.name === "kleinod_strip");
  if (there) node.removeWidget(there);
  if (!runs.length) return;
  const shown = runs.slice(0, MOST_ROWS).map(makeRow);
  const more = runs.length > MOST_ROWS ? ` (first ${MOST_ROWS} of ${runs.length} results)` : "";
  const style = { color: "var(--descrip-text, #999)", whiteSpace: "nowrap", overflow: "hidden" };
  shown.push(make("div", { style: { ...style, textOverflow: "ellipsis" }, title: runs[0].line }, runs[0].line + more));
  const font = "11px/1.5 Inter, Arial, sans-serif";
  const root = make("div", { className: "kleinod-strip", style: { font, width: "100%" } }, ...shown);
  addWidget(node, root, (shown.length - 1) * ROW_HEIGHT + WORDS_HEIGHT);
  const needed = node.computeSize()[1];
  if (node.size[1] < needed) node.setSize([node.size[0], needed]);
}

app.registerExtension({
  name: "kleinod.strip",
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const executed = node.onExecuted;
    node.onExecuted = function (...given) {
      const result = executed?.apply(this, given);
      drawStrip(this, given[0]?.kleinod_runs ?? []);
      return result;
    };
  },
});
