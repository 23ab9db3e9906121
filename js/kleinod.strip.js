// @ts-check
/**
 * Under a Klein Sampler's widgets, after an accelerated run: one cell for each step, in the colours of the chart.
 *
 * The server sends the runs with the node's results (`kleinod_runs`). A run without acceleration shows nothing.
 */
import { app } from "../../scripts/app.js";
import { make } from "./lib/elements.js";
import { addElement, findShown, findWidget, follow } from "./lib/widgets.js";
import { noted, say } from "./lib/words.js";

/** @import {GraphNode} from "../../scripts/app.js" */
/** @typedef {{word: string, meaning: string, colour: string, fill: string}} Kind how the server draws one kind of step */
/** @typedef {{label: string, pattern: string, line: string, kinds: Record<string, Kind>}} Run one result, as the server tells it */

const NODE = "KleinodSampler";
const WIDGET = "kleinod_strip";
/** The legend in the page's language; colours are the server's. @type {Record<string, string>} */
const WORDS = { C: noted("computed"), H: noted("prompt only"), R: noted("reused") };
const ROW_HEIGHT = 14;
const WORDS_HEIGHT = 22; // with the margins
const MOST_ROWS = 6; // more results than this are told by the first rows and a number

/** @param {Run} run */
function makeRow(run) {
  const cells = [...run.pattern].map((kind, index) => {
    const { meaning, colour, fill } = run.kinds[kind];
    const title = say("%1, step %2: %3", run.label, index + 1, kind in WORDS ? say(WORDS[kind]) : meaning);
    const style = { flex: "1 1 0", minWidth: "1px", borderRadius: "2px", background: fill, boxShadow: `inset 0 0 0 1px ${colour}` };
    return make("span", { title, style });
  });
  const style = { display: "flex", gap: "1px", height: `${ROW_HEIGHT - 4}px`, marginBottom: "4px" };
  const row = make("div", { role: "img", style }, ...cells);
  row.setAttribute("aria-label", `${run.label}: ${run.pattern}`);
  return row;
}

/**
 * What the cells mean. What came of the run stands in the node's own line above, and here in the tooltip, which stays
 * when the page is loaded again.
 * @param {Run[]} runs
 */
function makeLegend(runs) {
  /** @type {Record<string, Kind>} */
  const kinds = Object.assign({}, ...runs.map((run) => run.kinds));
  const used = Object.keys(kinds).filter((kind) => runs.some((run) => run.pattern.includes(kind)));
  const swatch = { display: "inline-block", width: "9px", height: "9px", borderRadius: "2px", margin: "0 4px 0 0" };
  const entries = used.map((kind) => {
    const { word, colour, fill } = kinds[kind];
    const mark = make("span", { style: { ...swatch, background: fill, boxShadow: `inset 0 0 0 1px ${colour}` } });
    return make("span", { style: { marginRight: "10px" } }, mark, kind in WORDS ? say(WORDS[kind]) : word);
  });
  if (runs.length > MOST_ROWS) entries.push(make("span", {}, say("first %1 of %2 results", MOST_ROWS, runs.length)));
  const style = { color: "var(--descrip-text, #999)", whiteSpace: "nowrap", overflow: "hidden" };
  return make("div", { style: { ...style, textOverflow: "ellipsis" }, title: runs[0].line }, ...entries);
}

/**
 * The strip is put on the node only when there is something to draw: an empty page widget is never put on the page.
 * @param {GraphNode} node @param {Run[]} runs
 */
function drawStrip(node, runs) {
  const there = findWidget(node, WIDGET);
  if (there) node.removeWidget(there);
  runs = runs.filter((run) => run.kinds); // a result of an older version, still in the server's history, has none
  if (!runs.length) return;
  const shown = runs.slice(0, MOST_ROWS).map(makeRow);
  shown.push(makeLegend(runs));
  const font = "11px/1.5 Inter, Arial, sans-serif";
  const root = make("div", { className: "kleinod-strip", style: { font, width: "100%", padding: "0 8px", boxSizing: "border-box" } }, ...shown);
  const height = () => (shown.length - 1) * ROW_HEIGHT + WORDS_HEIGHT;
  addElement(node, WIDGET, root, { least: height, most: height });
}

app.registerExtension({
  name: "kleinod.strip",
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    follow(node, "onExecuted", (output) => drawStrip(node, output?.kleinod_runs ?? []));
  },
  // After undoing, and in a tab gone back to, the nodes are new ones; their results are still known.
  onNodeOutputsUpdated(outputs) {
    for (const [locator, output] of Object.entries(outputs)) {
      const node = output?.kleinod_runs && findShown(locator);
      if (node?.comfyClass === NODE) drawStrip(node, output.kleinod_runs);
    }
  },
});
