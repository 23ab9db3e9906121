// @ts-check
/**
 * A line on Klein Runware and Klein BFL: what the job will cost and how long such jobs took, before Run is pressed; on
 * the outside of a subgraph that holds one, a badge with the price.
 *
 * The server does the sum (the same that the spending limits use); here is only the asking and the line.
 */
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { make } from "./lib/elements.js";
import { describeEstimate, describePrice } from "./lib/job_text.js";
import { saySentences } from "./lib/sentences.js";
import { SERVICES, serviceOf } from "./lib/services.js";
import { addElement, findDeciding, findOutside, findWidget, follow } from "./lib/widgets.js";
import { say } from "./lib/words.js";

/** @import {GraphNode} from "../../scripts/app.js" */

const ASKED = ["width", "height", "steps", "number_results", "endpoint", "model", "upload_format", "profile"];
const PICTURES = /^(images|input_image(_\d)?)$/;
const CALM_MILLISECONDS = 250;
const meaning = () =>
  say("An estimate: what your last equal jobs cost, else the service's list price; and how long your last jobs took.");
const LINE_HEIGHT = 24; // with the margins

/** What makes a node's line ask anew. @type {WeakMap<object, () => void>} */
const ASKS = new WeakMap();

/** Whether something comes in, also through the outside of a subgraph. @param {GraphNode} node @param {number} slot */
function isFed(node, slot) {
  if (!node.isInputConnected(slot)) return false;
  const outside = findOutside(node, slot);
  if (!outside) return true;
  const { host, name } = outside;
  return isFed(host, host.inputs.findIndex((/** @type {{name: string}} */ one) => one.name === name));
}

/**
 * Nodes that feed pictures to a node; those of a References value are the ones connected to its node.
 * @param {GraphNode} node
 * @returns {(GraphNode | null)[]} one entry a picture, null where its source cannot be seen
 */
function findPictures(node) {
  /** @type {(GraphNode | null)[]} */
  const found = [];
  node.inputs?.forEach((input, slot) => {
    if (!isFed(node, slot)) return;
    const source = node.getInputNode(slot);
    if (PICTURES.test(input.name)) found.push(source);
    if (input.name !== "references") return;
    const before = found.length;
    source?.inputs?.forEach((one, index) => {
      if (one.name.startsWith("images.") && source.isInputConnected(index)) found.push(source.getInputNode(index));
    });
    if (found.length === before) found.push(null);
  });
  return found;
}

/** "1024x768" of the picture a node shows, "" where it shows none. @param {GraphNode | null} source */
function sizeOf(source) {
  const shown = /** @type {{imgs?: HTMLImageElement[]} | null} */ (source)?.imgs?.[0];
  return shown?.naturalWidth ? `${shown.naturalWidth}x${shown.naturalHeight}` : "";
}

/** Our badges, to be replaced. @type {WeakSet<object>} */
const BADGES = new WeakSet();

/** Every node of the page, inside subgraphs, too. @returns {any[]} */
const listNodes = () => [app.rootGraph, ...app.rootGraph.subgraphs.values()].flatMap((graph) => [...graph.nodes]);

/**
 * The price on the nodes that have this one inside.
 * @param {any} node @param {string} words "" takes the badge away
 */
function showOutside(node, words) {
  for (const host of listNodes().filter((one) => one.subgraph && one.subgraph === node.graph)) {
    const before = host.badges;
    host.badges = before.filter((/** @type {object} */ badge) => !BADGES.has(badge));
    if (words) {
      const { LGraphBadge } = /** @type {any} */ (window);
      const badge = new LGraphBadge({ text: words, fgColor: "#ddd", bgColor: "#444" });
      BADGES.add(badge);
      host.badges.push(badge);
    }
    const change = { nodeId: host.id, property: "badges", oldValue: before, newValue: host.badges };
    host.graph?.trigger("node:property:changed", { type: "node:property:changed", ...change });
    host.setDirtyCanvas(true, true);
    showOutside(host, words);
  }
}

/** The profile of the Klein Runware Options that is connected. @param {GraphNode} node */
function findOptions(node) {
  const slot = node.inputs?.findIndex((input) => input.name === "options") ?? -1;
  const source = slot < 0 ? null : node.getInputNode(slot);
  return source && findWidget(source, "profile");
}

/** @param {GraphNode} node @param {string} service */
function addLine(node, service) {
  const line = make("div", {
    className: "kleinod-estimate",
    role: "status",
    title: meaning(),
    style: {
      font: "12px/1.6 Inter, Arial, sans-serif",
      color: "var(--descrip-text, #999)",
      textAlign: "center",
      whiteSpace: "nowrap", // one line: a second would be cut off, the rest stands in the title
      overflow: "hidden",
      textOverflow: "ellipsis",
    },
  });
  const height = () => LINE_HEIGHT;
  addElement(node, "kleinod_estimate", line, { least: height, most: height, hideOnZoom: true });
  let timer = 0;
  const ask = () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const asked = timer;
      if (!node.graph) return; // taken away meanwhile
      const pictures = findPictures(node);
      const pixels = pictures.map(sizeOf).filter(Boolean).join(",");
      const query = new URLSearchParams({ references: String(pictures.length), pixels });
      let told = "";
      for (const name of ASKED) {
        const shown = findWidget(node, name);
        if (!shown) continue;
        const deciding = findDeciding(node, name);
        if (!deciding) told = say(", if the connected numbers are as shown");
        query.set(name, String((deciding ?? shown).value));
      }
      const options = findOptions(node);
      if (options) query.set("profile", String(options.value));
      try {
        const answer = await api.fetchApi(`/kleinod/estimate/${service}?${query}`);
        const book = await answer.json();
        if (asked !== timer) return; // and answered sooner
        line.textContent = answer.ok ? describeEstimate(book) + told : saySentences(book.error ?? `HTTP ${answer.status}`);
        line.title = `${line.textContent}\n${meaning()}`;
        line.style.color = answer.ok ? "var(--descrip-text, #999)" : "var(--error-text, #f66)";
        const price = answer.ok ? describePrice(book) : "";
        showOutside(node, price && (book.server ? price : `${SERVICES[service].title}: ${price}`));
      } catch {
        if (asked === timer) line.textContent = "";
      }
    }, CALM_MILLISECONDS);
  };
  for (const name of ASKED) {
    const asked = findWidget(node, name);
    if (asked) follow(asked, "callback", ask);
  }
  for (const hook of /** @type {const} */ (["onConfigure", "onConnectionsChange", "onExecuted"])) follow(node, hook, ask);
  ASKS.set(node, ask);
  // Whoever comes back to the node, say from outside its subgraph, may have changed what decides there.
  new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && ask()).observe(line);
}

/** A picture more on a Klein References changes the price as well, and no hook of the remote node tells of it. */
function askAgain() {
  for (const node of listNodes()) ASKS.get(node)?.();
}

app.registerExtension({
  name: "kleinod.estimate",
  setup() {
    api.addEventListener("graphChanged", askAgain);
  },
  nodeCreated(node) {
    const service = serviceOf(node.comfyClass);
    if (service) addLine(node, service);
  },
});
