// @ts-check
/**
 * Sidebar > Klein Jobs: what was sent to the APIs, what it cost, and the way back to every picture paid for.
 *
 * Recover fetches a job at once, into the output folder; To graph adds Klein Recover Job. Both cost nothing.
 */
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { addStyles, make } from "./lib/elements.js";
import { describeAge, describeCost, describeDays, describeJob, describeSeeds, describeState, describeWorkers } from "./lib/job_text.js";
import { learnLanguage } from "./lib/language.js";
import { saySentences } from "./lib/sentences.js";
import { call, wordsOf } from "./lib/server.js";
import { addNode, changeGraph, findWidget, follow } from "./lib/widgets.js";
import { say } from "./lib/words.js";

/**
 * @import {Book, Job} from "./lib/job_text.js"
 * @import {GraphNode} from "../../scripts/app.js"
 */

const TAB = "kleinod-jobs";
const RECOVERY = "KleinodRecoverJob";
const JOB_ID = /[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/;
const GLANCE_MILLISECONDS = 3000;
const GAP = 40;
const CHANGED = "kleinod-jobs-changed";
const RUN_EVENTS = /** @type {const} */ ([
  "execution_start",
  "execution_success",
  "execution_error",
  "execution_interrupted",
]);

/** @param {Job} job @param {number} position @param {string} kind */
const pictureAddress = (job, position, kind) => api.apiURL(`/kleinod/jobs/${job.id}/${position}/${kind}`);

/** @param {"success" | "error"} severity @param {string} detail */
const tell = (severity, detail) =>
  app.extensionManager.toast.add({ severity, summary: say("Klein Jobs"), detail, life: 4000 });

/** What a file or the panel chose for a node whose list has not come yet. @type {WeakMap<GraphNode, string>} */
const chosen = new WeakMap();

/**
 * The page puts the first job of the list into the widget when the list comes, and then calls back for the first
 * time: what was chosen before goes back in.
 * @param {GraphNode} node
 */
function keepChosen(node) {
  const widget = findWidget(node, "job");
  if (!widget) return;
  let listed = false;
  follow(node, "onConfigure", () => {
    if (!listed && JOB_ID.test(String(widget.value))) chosen.set(node, String(widget.value));
  });
  follow(widget, "callback", () => {
    const choice = chosen.get(node);
    if (!listed && choice !== undefined) widget.value = choice;
    listed = true;
  });
}

/**
 * Fetches a job at once, into the output folder. Nothing is paid, no graph is needed.
 * @param {Job} job @param {HTMLButtonElement} button
 */
async function recover(job, button) {
  button.disabled = true;
  button.textContent = say("Fetching...");
  try {
    const { files, note } = await call(`jobs/${job.id}/recover`, "POST", {});
    const names = files.map((/** @type {{subfolder: string, filename: string}} */ file) => file.filename).join(", ");
    const done = say("In the output folder, under %1: %2.", files[0].subfolder, names);
    tell("success", note ? `${done} ${note}.` : done);
    document.dispatchEvent(new CustomEvent(CHANGED));
  } catch (error) {
    tell("error", wordsOf(error));
  } finally {
    button.disabled = false;
    button.textContent = say("Recover");
  }
}

/**
 * A Klein Recover Job for this job on a free place of what the user sees.
 * @param {Job} job
 */
function addRecovery(job) {
  const [x, y, width, height] = app.canvas.visible_area;
  changeGraph(() => {
    const node = addNode(app.canvas.graph, RECOVERY, (size) => {
      const place = [x + (width - size[0]) / 2, y + (height - size[1]) / 2];
      const others = app.canvas.graph?.nodes ?? [];
      while (others.some((other) => overlap(other, place, size))) place[1] += size[1] + GAP;
      return /** @type {[number, number]} */ (place);
    });
    const widget = findWidget(node, "job");
    if (widget) widget.value = job.choice;
    chosen.set(node, job.choice);
    app.canvas.selectNode(node);
  });
  tell("success", say("Klein Recover Job is in the graph: connect its images, for example to Save Image."));
}

/**
 * @param {{pos: ArrayLike<number>, size: ArrayLike<number>}} other
 * @param {number[]} place
 * @param {ArrayLike<number>} size
 */
function overlap({ pos, size: its }, place, size) {
  return [0, 1].every((axis) => pos[axis] < place[axis] + size[axis] + GAP && place[axis] < pos[axis] + its[axis] + GAP);
}

/** @param {Job} job */
async function copyRequest(job) {
  try {
    await navigator.clipboard.writeText(JSON.stringify(job.request, null, 2));
    tell("success", say("The request is on the clipboard, without prompt and pictures: the ledger does not keep them."));
  } catch {
    tell("error", say("The browser does not let this page write to the clipboard. Open ComfyUI by https or localhost."));
  }
}

/** What a job was asked for with, as far as it is still there: it comes by itself, as its pictures do. @param {Job} job */
function makePrompt(job) {
  const line = make("div", { className: "kleinod-prompt" });
  call(`jobs/${job.id}/prompt`)
    .then(({ prompt }) => Object.assign(line, { textContent: prompt, title: prompt }))
    .catch(() => line.remove());
  return line;
}

/** @param {Job} job @param {number} now */
function makeCard(job, now) {
  const card = make(
    "div",
    { className: `kleinod-job${job.unfinished ? " kleinod-unfinished" : ""}`, role: "listitem" },
    make("div", { className: "kleinod-line" }, make("b", {}, describeState(job)), make("span", {}, describeCost(job))),
    make(
      "div",
      { className: "kleinod-line kleinod-dim" },
      make("span", {}, describeJob(job)),
      make("span", { style: { whiteSpace: "nowrap" } }, describeAge(job.created, now)),
    ),
  );
  const seeds = describeSeeds(job);
  if (seeds) card.append(make("div", { className: "kleinod-dim kleinod-seeds" }, seeds));
  const workers = describeWorkers(job);
  if (workers) card.append(make("div", { className: "kleinod-dim kleinod-workers" }, workers));
  card.append(makePrompt(job));
  if (job.message) card.append(make("div", { className: "kleinod-dim" }, saySentences(job.message)));
  const pictures = make("div", { className: "kleinod-pictures" });
  for (const [index, { position, width, height, seed }] of job.pictures.entries()) {
    const size = `${width}x${height}`;
    const title = seed === null ? say("%1. Click to open.", size) : say("%1, seed %2. Click to open.", size, seed);
    const image = make("img", { src: pictureAddress(job, position, "thumbnail"), alt: say("Result %1", index + 1), title });
    image.loading = "lazy";
    image.addEventListener("error", () => link.remove());
    const link = make("a", { href: pictureAddress(job, position, "picture"), target: "_blank", rel: "noopener" }, image);
    pictures.append(link);
  }
  if (job.pictures.length) card.append(pictures);
  const fetching = make("button", { type: "button" }, say("Recover"));
  fetching.title = say("Fetches the pictures into the output folder, without paying again.");
  fetching.addEventListener("click", () => recover(job, fetching));
  const place = make("button", { type: "button", onclick: () => addRecovery(job) }, say("To graph"));
  place.title = say("Adds Klein Recover Job to the graph: its images are those of this job, without paying again.");
  const copy = make("button", { type: "button", onclick: () => copyRequest(job) }, say("Copy request"));
  copy.title = say("The request as JSON, without prompt and pictures.");
  card.append(make("div", { className: "kleinod-pictures" }, ...(job.choice ? [fetching, place, copy] : [copy])));
  return card;
}

/** The panel's contents for one answer of the server. @param {Book} book */
function makeContents(book) {
  const days = make("div", { className: "kleinod-days" });
  for (const { day, usd, share } of describeDays(book.spent_by_day)) {
    const bar = make("div", { className: "kleinod-bar", style: { width: `${Math.max(2, share * 100)}%` } });
    days.append(make("span", {}, day), bar, make("span", {}, usd));
  }
  const list = make("div", { role: "list", style: { display: "flex", flexDirection: "column", gap: "8px" } });
  const now = Date.now() / 1000;
  list.append(...book.jobs.map((job) => makeCard(job, now)));
  if (!book.jobs.length) list.append(make("p", { className: "kleinod-dim" }, say("No job was sent yet.")));
  const today = say("$%1 today", book.spent_today_usd.toFixed(4));
  return [
    make("div", { className: "kleinod-line" }, make("h3", {}, say("Klein Jobs")), make("span", {}, today)),
    ...(book.note ? [make("p", { className: "kleinod-dim", role: "alert" }, book.note)] : []),
    days,
    list,
  ];
}

/**
 * Keeps `root` up to date until the signal says that the panel is closed.
 * @param {HTMLElement} root
 * @param {AbortSignal} signal
 */
function keepFresh(root, signal) {
  let shown = "";
  let timer = 0;
  let asked = 0;
  const look = async () => {
    clearTimeout(timer);
    const mine = ++asked;
    try {
      /** @type {Book} */
      const book = await call("jobs");
      if (signal.aborted || mine !== asked) return; // a newer list may be there
      const told = JSON.stringify(book);
      if (told !== shown) root.replaceChildren(...makeContents(book));
      shown = told;
      if (book.jobs.some((job) => job.unfinished)) timer = setTimeout(look, GLANCE_MILLISECONDS);
    } catch (error) {
      root.replaceChildren(make("p", { className: "kleinod-dim" }, say("The list of jobs could not be read: %1", wordsOf(error))));
    }
  };
  for (const kind of RUN_EVENTS) api.addEventListener(kind, look);
  document.addEventListener(CHANGED, look, { signal });
  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    for (const kind of RUN_EVENTS) api.removeEventListener(kind, look);
  });
  look();
}

let opened = new AbortController();

app.registerExtension({
  name: "kleinod.jobs",
  async init() {
    addStyles("kleinod.jobs.css");
    await learnLanguage(); // the tab is named once
    app.extensionManager.registerSidebarTab({
      id: TAB,
      icon: "pi pi-receipt",
      title: say("Klein Jobs"),
      tooltip: say("Klein Jobs: API jobs, their pictures and costs"),
      type: "custom",
      render(element) {
        opened.abort();
        opened = new AbortController();
        const root = make("div", { className: "kleinod-jobs" });
        element.replaceChildren(root);
        keepFresh(root, opened.signal);
      },
      destroy: () => opened.abort(),
    });
  },
  nodeCreated(node) {
    if (node.comfyClass === RECOVERY) keepChosen(node);
  },
});
