// @ts-check
/**
 * Settings > Kleinod: API keys and spending limits.
 *
 * The settings' `setter` is never called, so nothing typed here reaches comfy.settings.json, which every extension
 * and everyone on the port can read. Keys travel once, to Kleinod's own guarded route, and never come back.
 */
import { app } from "../../scripts/app.js";
import { make } from "./lib/elements.js";
import { describeKey, describeSpending, parseLimit } from "./lib/remote_text.js";
import { call, wordsOf } from "./lib/server.js";
import { SERVICES } from "./lib/services.js";
import { findWidget, follow } from "./lib/widgets.js";

/**
 * @import {Limits} from "./lib/remote_text.js"
 * @import {GraphNode} from "../../scripts/app.js"
 */

const ROW = { display: "flex", gap: "6px", alignItems: "center", flexWrap: "wrap" };
const FIELD = {
  padding: "4px 8px",
  borderRadius: "6px",
  border: "1px solid var(--border-color, #555)",
  background: "var(--comfy-input-bg, #222)",
  color: "var(--input-text, #ddd)",
};
const BUTTON = { ...FIELD, cursor: "pointer" };

/**
 * The panel of one service: profile, password field, Save / Test / Clear, one line of news.
 * @param {string} service
 */
function makeKeyPanel(service) {
  const news = make("div", { style: { fontSize: "0.85em", opacity: "0.85", minHeight: "1.4em" }, role: "status" });
  const profile = make("input", {
    value: "default",
    ariaLabel: `${SERVICES[service].company} profile`,
    title: "A name for this account. Nodes carry the name, never the key.",
    style: { ...FIELD, width: "7em" },
  });
  const key = make("input", {
    type: "password",
    autocomplete: "off",
    placeholder: "API key",
    ariaLabel: `${SERVICES[service].company} API key`,
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
  const button = (label, work) => {
    const element = make("button", { type: "button", textContent: label, style: BUTTON });
    element.addEventListener("click", async () => {
      element.disabled = true;
      try {
        await work();
      } catch (error) {
        tell(wordsOf(error), true);
      } finally {
        element.disabled = false;
      }
    });
    return element;
  };
  const who = () => ({ service, profile: profile.value.trim() });
  const save = button("Save", async () => {
    const typed = key.value.trim();
    key.value = "";
    await call("keys", "POST", { ...who(), key: typed });
    await refresh();
  });
  const test = button("Test", async () => {
    tell("Asking...");
    const found = await call("keys/test", "POST", who());
    tell(found.message, !found.ok);
  });
  const clear = button("Clear", async () => {
    await call("keys", "DELETE", who());
    await refresh();
  });
  profile.addEventListener("change", () => refresh().catch((error) => tell(wordsOf(error), true)));
  refresh().catch((error) => tell(wordsOf(error), true));
  const row = make("div", { style: ROW }, profile, key, save, test, clear);
  return make("div", { style: { display: "flex", flexDirection: "column", gap: "4px" } }, row, news);
}

/** Limits per run and per day, jobs at once, and what today cost. */
function makeLimitsPanel() {
  const news = make("div", { style: { fontSize: "0.85em", opacity: "0.85", minHeight: "1.4em" }, role: "status" });
  /** @type {Record<string, HTMLInputElement>} */
  const fields = {};
  const row = make("div", { style: ROW });
  for (const [name, label, step] of [
    ["run_usd", "USD per run", "0.01"],
    ["day_usd", "USD per day", "0.01"],
    ["concurrency", "jobs at once", "1"],
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
  const save = make("button", { type: "button", textContent: "Save", style: BUTTON });
  save.addEventListener("click", async () => {
    try {
      const values = Object.fromEntries(Object.entries(fields).map(([name, f]) => [name, parseLimit(f.value)]));
      await show(await call("limits", "POST", values));
    } catch (error) {
      news.textContent = wordsOf(error);
    }
  });
  row.append(save);
  call("limits").then(show).catch((error) => (news.textContent = wordsOf(error)));
  return make("div", { style: { display: "flex", flexDirection: "column", gap: "4px" } }, row, news);
}

/** The field that lets a browser on another computer in: the server says when it is needed. */
function makeCodePanel() {
  const news = make("div", { style: { fontSize: "0.85em", opacity: "0.85", minHeight: "1.4em" }, role: "status" });
  const code = make("input", {
    autocomplete: "off",
    placeholder: "ABCD-EFGH-JKMN-PQRS",
    ariaLabel: "Code of ComfyUI's console",
    style: { ...FIELD, width: "16em" },
  });
  const open = make("button", { type: "button", textContent: "Unlock", style: BUTTON });
  open.addEventListener("click", async () => {
    try {
      await call("unlock", "POST", { code: code.value });
      code.value = "";
      news.textContent = "This browser may manage keys, limits and jobs until ComfyUI is started again.";
    } catch (error) {
      news.textContent = wordsOf(error);
    }
  });
  const row = make("div", { style: ROW }, code, open);
  return make("div", { style: { display: "flex", flexDirection: "column", gap: "4px" } }, row, news);
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
      detail: "That looked like an API key and was taken out of the node. Keys go into Settings > Kleinod > API keys.",
      life: 10000,
    });
  });
}

app.registerExtension({
  name: "kleinod.keys",
  nodeCreated(node) {
    if (node.comfyClass?.startsWith("Kleinod")) guardProfile(node);
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
