// @ts-check
/** What a LoRA file says about itself, in a panel: read from the file and those beside it, never from the network. */
import { api } from "../../../scripts/api.js";
import { make, openPanel } from "./elements.js";
import { isAir } from "./lora_rows.js";
import { call, wordsOf } from "./server.js";
import { say } from "./words.js";

/** @import {Row} from "./lora_rows.js" */

/**
 * What nodes/loras/info.py reads in a file, as far as it is shown.
 * @typedef {{preview: string, trigger_words: string[], base_model: string, rank: string, alpha: string,
 *   description: string, sha256: string}} Info
 */

/**
 * @param {string} file
 * @returns {Promise<Info>} an Error with a sentence where it cannot be read
 */
export function readInfo(file) {
  return call(`loras/info?file=${encodeURIComponent(file)}`);
}

/** What every file was made for, by its name; "" where that is not known. @returns {Promise<Record<string, string>>} */
export async function listModels() {
  return (await call("loras/models").catch(() => ({ models: {} }))).models;
}

/**
 * @param {HTMLElement} anchor
 * @param {Row} row
 * @param {(fields: {air: string}) => void} onChange
 * @returns {() => void} closes the panel
 */
export function openLoraInfo(anchor, row, onChange) {
  const told = make("div", { className: "kleinod-told", textContent: row.file ? say("Reading...") : "" });
  const news = make("div", { className: "kleinod-news", role: "status" });
  const air = make("input", {
    type: "text",
    value: row.air,
    placeholder: "civitai:123@456",
    spellcheck: false,
    title: say("For Klein Runware: which LoRA of its catalogue this row means there."),
    "aria-label": say("AIR id"),
    onchange: () => {
      const id = air.value.trim();
      const fine = id === "" ? row.file !== "" : isAir(id);
      news.textContent = fine ? "" : say("An AIR id looks like %1.", "civitai:123@456");
      if (fine && id !== row.air) onChange({ air: id });
    },
  });
  const title = make("div", { className: "kleinod-title", textContent: row.file || row.air });
  const label = make("label", { className: "kleinod-field" }, say("AIR id"), air);
  const close = openPanel(anchor, make("div", { className: "kleinod-about" }, title, told, label, news), () => {
    if (document.activeElement === air) air.blur();
  });
  if (row.file)
    readInfo(row.file).then(
      (info) => told.replaceChildren(...describe(info)),
      (error) => (told.textContent = wordsOf(error)),
    );
  return close;
}

/** @param {Info} info */
function describe(info) {
  /** @type {(Node | string)[]} */
  const parts = [];
  if (info.preview) parts.push(make("img", { src: api.apiURL(info.preview), alt: say("Preview"), className: "kleinod-preview" }));
  if (info.trigger_words.length > 0) {
    const chips = info.trigger_words.map((word) =>
      make("button", {
        type: "button",
        textContent: word,
        title: say("Copy"),
        onclick: (event) => copy(word, /** @type {HTMLElement} */ (event.currentTarget)),
      }),
    );
    parts.push(fact(say("Trigger words"), make("span", { className: "kleinod-words" }, ...chips)));
  }
  for (const [label, value] of [
    [say("Base model"), info.base_model],
    [say("Rank"), info.rank],
    [say("Alpha"), info.alpha],
    [say("About"), info.description],
    ["sha256", info.sha256 ? `${info.sha256.slice(0, 10)}...` : ""],
  ])
    if (value !== undefined && value !== null && value !== "") parts.push(fact(label, String(value)));
  if (parts.length === 0) parts.push(say("The file says nothing about itself."));
  return parts;
}

/** @param {string} label @param {Node | string} value */
function fact(label, value) {
  return make("div", { className: "kleinod-fact" }, make("b", { textContent: label }), make("span", {}, value));
}

/** @param {string} text @param {HTMLElement} button */
async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.title = say("Copied");
    button.classList.add("kleinod-copied");
  } catch {
    button.title = say("The browser does not allow copying here");
  }
}
