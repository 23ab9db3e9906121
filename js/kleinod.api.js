// @ts-check
/**
 * Settings > Kleinod > Answer API requests: this ComfyUI as a service for programs written for Runware, BFL or OpenAI.
 *
 * The switch and the keys are stored on the server's computer. A key is shown once, when it is made.
 */
import { app } from "../../scripts/app.js";
import { FIELD, make, ROW } from "./lib/elements.js";
import { call, wordsOf } from "./lib/server.js";
import { say } from "./lib/words.js";

const BUTTON = { ...FIELD, cursor: "pointer" };
const COLUMN = { display: "flex", flexDirection: "column", gap: "4px", maxWidth: "34em" };

/** The switch, the addresses, and the keys by name. */
function makeApiPanel() {
  const news = make("div", {
    role: "status",
    style: { fontSize: "0.85em", opacity: "0.85", minHeight: "1.4em", overflowWrap: "anywhere", whiteSpace: "pre-line" },
  });
  const on = make("input", { type: "checkbox" });
  const name = make("input", { placeholder: say("Name of the key"), ariaLabel: say("Name of the key"), style: { ...FIELD, width: "12em" } });
  const keys = make("div", { style: COLUMN });

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
    keys.replaceChildren(
      ...told.keys
        .filter((/** @type {any} */ key) => !key.revoked)
        .map((/** @type {any} */ key) => {
          const end = make("button", { type: "button", textContent: say("Revoke"), style: BUTTON });
          end.addEventListener("click", () => run(() => call("api-settings/revoke", "POST", { name: key.name })));
          return make("div", { style: ROW }, make("span", {}, key.name), end);
        }),
    );
  };
  const create = make("button", { type: "button", textContent: say("New key"), style: BUTTON });
  create.addEventListener("click", () =>
    run(
      () => call("api-settings/key", "POST", { name: name.value.trim() }),
      (told) => say("Copy this key now, it is shown this once: %1", told.secret),
    ),
  );
  on.addEventListener("change", () => run(() => call("api-settings", "POST", { enabled: on.checked })));
  run(() => call("api-settings"));
  const label = make("label", { style: ROW }, on, make("span", {}, say("Answer requests that show a key")));
  return make("div", { style: COLUMN }, label, make("div", { style: ROW }, name, create), keys, news);
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
