// @ts-check
/**
 * Settings > Kleinod > Answer API requests: this ComfyUI as a service for programs written for Runware, BFL or OpenAI.
 *
 * The switch, the keys and what the owner decides are stored on the server's computer. A key is shown once, when it is
 * made.
 */
import { app } from "../../scripts/app.js";
import { BUTTON, COLUMN, FIELD, make, NEWS, ROW, showOnceKnown } from "./lib/elements.js";
import { readPairs, writePairs } from "./lib/pairs.js";
import { call, wordsOf } from "./lib/server.js";
import { say } from "./lib/words.js";

/** The switch, the addresses, the keys by name with their limits, and what the owner decides. */
function makeApiPanel() {
  const news = make("div", { role: "status", style: NEWS });
  const on = make("input", { type: "checkbox" });
  const name = make("input", { placeholder: say("Name of the key"), ariaLabel: say("Name of the key"), style: { ...FIELD, width: "12em" } });
  const atOnce = makeNumber(say("pictures at once"), "256", "1");
  const aDay = makeNumber(say("jobs a day (0 = any)"), "0", "0");
  const keys = make("div", { style: COLUMN });
  const owner = makeOwnerFields();

  /** @param {() => Promise<any>} ask @param {(told: any) => string} [words] */
  const run = async (ask, words) => {
    try {
      const told = await ask();
      show(told);
      if (words) news.textContent = words(told);
    } catch (error) {
      news.textContent = wordsOf(error);
    }
  };
  /** @param {any} told */
  const show = (told) => {
    on.checked = told.running;
    const places = Object.entries(told.addresses).map(([vendor, place]) => `${vendor}: ${place}`);
    news.textContent = told.running ? places.join("\n") : say("Off: nothing is answered.");
    if (told.secret) news.textContent += `\n${say("Copy this key now, it is shown this once: %1", told.secret)}`;
    owner.show(told.settings);
    keys.replaceChildren(
      ...told.keys
        .filter((/** @type {any} */ key) => !key.revoked)
        .map((/** @type {any} */ key) => {
          const end = make("button", { type: "button", textContent: say("Revoke"), style: BUTTON });
          end.addEventListener("click", () => run(() => call("api-settings/revoke", "POST", { name: key.name })));
          const day = key.a_day ? say("%1 jobs a day", key.a_day) : say("any number a day");
          const limits = `${say("%1 pictures at once", key.at_once)}, ${day}`;
          return make("div", { style: ROW }, make("span", { title: limits }, `${key.name} (${limits})`), end);
        }),
    );
  };
  const create = make("button", { type: "button", textContent: say("New key"), style: BUTTON });
  create.addEventListener("click", () =>
    run(() => call("api-settings/key", "POST", { name: name.value.trim(), at_once: Number(atOnce.value), a_day: Number(aDay.value) })),
  );
  on.addEventListener("change", () => run(() => call("api-settings", "POST", { enabled: on.checked })));
  owner.save.addEventListener("click", () => run(() => call("api-settings", "POST", owner.read()), () => say("Saved.")));
  const known = run(() => call("api-settings"));
  const label = make("label", { style: ROW }, on, make("span", {}, say("Answer requests that show a key")));
  const limits = make("div", { style: ROW }, atOnce.label, aDay.label);
  const help = make("a", { href: new URL("./docs/service.html", import.meta.url).href, target: "_blank", rel: "noopener" }, say("Help: examples, and how to run it for a team"));
  help.style.color = "var(--p-primary-color, #4b8df8)";
  return showOnceKnown(make("div", { style: COLUMN }, label, help, make("div", { style: ROW }, name, create), limits, keys, news, owner.element), known);
}

/** A number with its words beside it. @param {string} words @param {string} value @param {string} min @param {string} [step] */
function makeNumber(words, value, min, step = "1") {
  const field = make("input", { type: "number", min, step, value, ariaLabel: words, style: { ...FIELD, width: "7em" } });
  const label = make("label", { style: { ...ROW, flexWrap: "nowrap" } }, field, words);
  return Object.assign(field, { label });
}

/** What the owner decides, folded up: who may ask, what it costs, which file a name means. */
function makeOwnerFields() {
  /** @param {string} words @param {string} example @param {"input" | "textarea"} [tag] */
  const text = (words, example, tag = "input") => {
    const field = make(tag, { placeholder: example, ariaLabel: words, style: { ...FIELD, width: "30em", maxWidth: "100%" } });
    return { field, row: make("label", { style: { ...COLUMN, gap: "1px" } }, words, field) };
  };
  /** @param {string} words */
  const tick = (words) => {
    const field = make("input", { type: "checkbox" });
    return { field, row: make("label", { style: { ...ROW, flexWrap: "nowrap" } }, field, make("span", {}, words)) };
  };
  const remote = tick(say("Answer other machines, too (ComfyUI must listen to them: start it with --listen)"));
  const standIn = tick(say("klein-nano draws where there are no weights"));
  const hosts = text(say("Names under which this machine is asked"), "pictures.example.com");
  const address = text(say("Address that results' links begin with, behind a proxy"), "https://pictures.example.com/kleinod/api");
  const reachable = text(say("Private hosts that requests may name"), "nas.local, 10.0.0.7:8080");
  const models = text(say("Files by model name, one a line"), "runware:400@5 = my-klein.safetensors", "textarea");
  const loras = text(say("LoRA files by AIR id, one a line"), "civitai:123@456 = style.safetensors", "textarea");
  const classifier = text(say("Folder of an image classifier, for safety.checkContent"), "/models/nsfw-classifier");
  const picture = makeNumber(say("USD per picture"), "0", "0", "0.0001");
  const second = makeNumber(say("USD per second"), "0", "0", "0.0001");
  const save = make("button", { type: "button", textContent: say("Save"), style: { ...BUTTON, alignSelf: "flex-start" } });
  const lists = { hosts, reachable };
  const tables = { models, loras };
  const texts = { public_address: address, classifier };
  const ticks = { remote, stand_in: standIn };
  const numbers = { picture_usd: picture, second_usd: second };
  const rows = [remote, standIn, hosts, address, reachable, models, loras, classifier].map(({ row }) => row);
  const prices = make("div", { style: ROW }, picture.label, second.label);
  const rest = make("div", { style: NEWS }, say("The rest stands in %1 of ComfyUI's user folder.", "__kleinod/service/api.json"));
  const element = make("details", {}, make("summary", {}, say("Who may ask, prices, files")), make("div", { style: COLUMN }, ...rows, prices, save, rest));
  /** @template {object} T @param {T} group @param {(field: any) => any} read */
  const collect = (group, read) => Object.fromEntries(Object.entries(group).map(([key, one]) => [key, read(one.field ?? one)]));
  return {
    element,
    save,
    read: () => ({
      ...collect(lists, (field) => field.value.split(/[\s,]+/).filter(Boolean)),
      ...collect(tables, (field) => readPairs(field.value)),
      ...collect(texts, (field) => field.value.trim()),
      ...collect(ticks, (field) => field.checked),
      ...collect(numbers, (field) => Number(field.value)),
    }),
    /** @param {any} settings */
    show: (settings) => {
      for (const [key, { field }] of Object.entries(lists)) field.value = settings[key].join(", ");
      for (const [key, { field }] of Object.entries(tables)) field.value = writePairs(settings[key]);
      for (const [key, { field }] of Object.entries(texts)) field.value = settings[key];
      for (const [key, { field }] of Object.entries(ticks)) field.checked = settings[key];
      for (const [key, field] of Object.entries(numbers)) field.value = String(settings[key]);
    },
  };
}

app.registerExtension({
  name: "kleinod.api",
  settings: [
    {
      id: "Kleinod.Api.Answer",
      category: ["Kleinod", "API that answers", "Answer"],
      name: "Answer API requests",
      tooltip: "Programs written for Runware, Black Forest Labs or OpenAI get their pictures from this ComfyUI.",
      type: () => makeApiPanel(),
      defaultValue: "",
    },
  ],
});
