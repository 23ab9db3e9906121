// @ts-check
/**
 * Settings > Kleinod: API keys and spending limits.
 *
 * The settings' `setter` is never called, so nothing typed here reaches comfy.settings.json, which every extension
 * and everyone on the port can read. Keys travel once, to Kleinod's own guarded route, and never come back.
 */
import { app } from "../../scripts/app.js";
import { BUTTON, COLUMN, FIELD, make, makeButton, ROW, showOnceKnown } from "./lib/elements.js";
import { describeKey, describeSpending, parseLimit } from "./lib/remote_text.js";
import { saySentences } from "./lib/sentences.js";
import { call, wordsOf } from "./lib/server.js";
import { SERVICES } from "./lib/services.js";
import { findWidget, follow, isOurs } from "./lib/widgets.js";
import { say } from "./lib/words.js";

/**
 * @import {Limits} from "./lib/remote_text.js"
 * @import {GraphNode} from "../../scripts/app.js"
 */

// As wide as its row, whatever it says, so that a long sentence moves nothing.
const NEWS = { fontSize: "0.85em", opacity: "0.85", minHeight: "2.8em", width: "34em", maxWidth: "100%" };

/**
 * The panel of one service: account, password field, Save / Test / Clear, where keys come from, a line of news.
 * @param {string} service
 */
function makeKeyPanel(service) {
  const news = make("div", { style: { ...NEWS, overflowWrap: "anywhere" }, role: "status" });
  const profile = make("input", {
    value: "default",
    ariaLabel: say("%1: account", SERVICES[service].company),
    title: say("A name of your own for this account; default is enough for one. Nodes carry the name, never the key."),
    style: { ...FIELD, width: "7em" },
  });
  const key = make("input", {
    type: "password",
    autocomplete: "off",
    placeholder: say("API key"),
    ariaLabel: say("%1: API key", SERVICES[service].company),
    style: { ...FIELD, width: "16em" },
  });
  key.setAttribute("data-lpignore", "true");

  /** @param {string} text @param {boolean} bad */
  const tell = (text, bad = false) => {
    news.textContent = text;
    news.style.color = bad ? "var(--error-text, #f66)" : "inherit";
  };
  const refresh = async () => {
    const known = await call("keys");
    tell(describeKey(known[service]?.[profile.value.trim()]));
  };
  /** @param {string} label @param {() => Promise<void>} work */
  const button = (label, work) => makeButton(label, work, (error) => tell(wordsOf(error), true));
  const who = () => ({ service, profile: profile.value.trim() });
  const save = button(say("Save"), async () => {
    await call("keys", "POST", { ...who(), key: key.value.trim() });
    key.value = ""; // only a key that was taken: a refused one can be mended
    await refresh();
  });
  key.addEventListener("keydown", (event) => {
    if (event.key === "Enter") save.click();
  });
  const test = button(say("Test"), async () => {
    tell(say("Asking..."));
    const found = await call("keys/test", "POST", who());
    tell(saySentences(found.message), !found.ok);
  });
  const clear = button(say("Clear"), async () => {
    await call("keys", "DELETE", who());
    await refresh();
  });
  profile.addEventListener("change", () => refresh().catch((error) => tell(wordsOf(error), true)));
  refresh().catch((error) => tell(wordsOf(error), true));
  const account = make("label", { style: { ...ROW, flexWrap: "nowrap" } }, say("Account"), profile);
  const first = make("div", { style: ROW }, account, makeKeyLink(SERVICES[service].key_page));
  return make("div", { style: COLUMN }, first, make("div", { style: ROW }, key, save, test, clear), news);
}

/** Where a user gets a key. @param {string} page */
function makeKeyLink(page) {
  const link = make("a", { href: page, target: "_blank", rel: "noopener" }, say("Get a key"));
  link.style.color = "var(--p-primary-color, #4b8df8)";
  return link;
}

/** Limits per run and per day, jobs at once, and what today cost. */
function makeLimitsPanel() {
  const news = make("div", { style: { ...NEWS, overflowWrap: "anywhere" }, role: "status" });
  /** @type {Record<string, HTMLInputElement>} */
  const fields = {};
  const row = make("div", { style: ROW });
  for (const [name, label, step] of [
    ["run_usd", say("USD per run"), "0.01"],
    ["day_usd", say("USD per day"), "0.01"],
    ["concurrency", say("jobs at once"), "1"],
  ]) {
    const field = make("input", { type: "number", min: "0", step, ariaLabel: label, style: { ...FIELD, width: "6em" } });
    fields[name] = field;
    row.append(make("label", { style: { ...ROW, flexWrap: "nowrap" } }, field, label));
  }
  /** @param {Limits} limits */
  const show = async (limits) => {
    for (const [name, field] of Object.entries(fields)) field.value = String(limits[/** @type {keyof Limits} */ (name)]);
    const book = await call("jobs");
    news.textContent = describeSpending(limits, book.spent_today_usd);
  };
  const save = make("button", { type: "button", textContent: say("Save"), style: BUTTON });
  save.addEventListener("click", async () => {
    try {
      const values = Object.fromEntries(Object.entries(fields).map(([name, f]) => [name, parseLimit(f.value)]));
      await show(await call("limits", "POST", values));
    } catch (error) {
      news.textContent = wordsOf(error);
    }
  });
  row.append(save);
  row.addEventListener("keydown", (event) => {
    if (event.key === "Enter") save.click();
  });
  return showOnceKnown(make("div", { style: COLUMN }, row, news), call("limits").then(show).catch((error) => (news.textContent = wordsOf(error))));
}

/** The field that lets a browser on another computer in: the server says when it is needed. */
function makeCodePanel() {
  const news = make("div", { style: NEWS, role: "status" });
  const code = make("input", {
    autocomplete: "off",
    placeholder: "ABCD-EFGH-JKMN-PQRS",
    ariaLabel: say("Code of ComfyUI's console"),
    style: { ...FIELD, width: "16em" },
  });
  const open = make("button", { type: "button", textContent: say("Unlock"), style: BUTTON });
  open.addEventListener("click", async () => {
    try {
      await call("unlock", "POST", { code: code.value });
      code.value = "";
      news.textContent = say("This browser may manage keys, limits and jobs until ComfyUI is started again.");
    } catch (error) {
      news.textContent = wordsOf(error);
    }
  });
  const row = make("div", { style: ROW }, code, open);
  return make("div", { style: COLUMN }, row, news);
}

/**
 * A key typed where a profile's name belongs would be saved with the workflow: it is taken out again.
 * @param {GraphNode} node
 */
function guardProfile(node) {
  const widget = findWidget(node, "profile");
  if (!widget) return;
  follow(widget, "callback", async () => {
    const profile = String(widget.value);
    if (profile === "default") return;
    const { is_key } = await call("profiles/check", "POST", { profile }).catch(() => ({ is_key: false }));
    if (!is_key || widget.value !== profile) return;
    widget.value = "default";
    node.setDirtyCanvas(true, true);
    app.extensionManager.toast.add({
      severity: "error",
      summary: "Klein",
      detail: say("That looked like an API key and was taken out of the node. Keys go into Settings > Kleinod > API keys."),
      life: 10000,
    });
  });
}

app.registerExtension({
  name: "kleinod.keys",
  nodeCreated(node) {
    if (isOurs(node)) guardProfile(node);
  },
  settings: [
    ...Object.entries(SERVICES).map(([service, { title, company }]) => ({
      id: `Kleinod.Keys.${title}`,
      category: ["Kleinod", "API keys", company],
      name: company,
      tooltip: "Stored on this computer for ComfyUI alone. A workflow never holds a key.",
      type: () => makeKeyPanel(service),
      defaultValue: "",
    })),
    {
      id: "Kleinod.Keys.Code",
      category: ["Kleinod", "API keys", "Code"],
      name: "Code",
      tooltip:
        "ComfyUI's console shows it once somebody comes from another computer or through a proxy. With it, keys, " +
        "limits and jobs are managed from there, too.",
      type: () => makeCodePanel(),
      defaultValue: "",
    },
    {
      id: "Kleinod.Spending.Limits",
      category: ["Kleinod", "Spending", "Limits"],
      name: "Limits (0 = none)",
      tooltip: "A job that would pass a limit is not sent.",
      type: () => makeLimitsPanel(),
      defaultValue: "",
    },
  ],
});
