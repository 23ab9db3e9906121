// @ts-check
/**
 * Settings > Kleinod > Acceleration: may runs without acceleration teach, what they taught, and forgetting it.
 *
 * The switch is stored on the server's computer, where every run reads it.
 */
import { app } from "../../scripts/app.js";
import { COLUMN, make, makeButton, NEWS, ROW, showOnceKnown } from "./lib/elements.js";
import { saySentences } from "./lib/sentences.js";
import { call, wordsOf } from "./lib/server.js";
import { say } from "./lib/words.js";

function makeLearningPanel() {
  const news = make("div", { role: "status", style: NEWS });
  const on = make("input", { type: "checkbox", ariaLabel: say("Learn from uncached runs") });
  /** @param {unknown} error */
  const fail = (error) => (news.textContent = wordsOf(error));
  /** @param {{enabled: boolean, learned: string[]}} told */
  const show = (told) => {
    on.checked = told.enabled;
    news.textContent = told.learned.map(saySentences).join("\n\n") || say("Nothing was learned so far.");
  };
  const erase = makeButton(say("Erase what was learned"), async () => show(await call("learning/erase", "POST", {})), fail);
  on.addEventListener("change", () => call("learning", "POST", { enabled: on.checked }).then(show).catch(fail));
  const known = call("learning").then(show).catch(fail);
  return showOnceKnown(make("div", { style: COLUMN }, make("div", { style: ROW }, on, erase), news), known);
}

app.registerExtension({
  name: "kleinod.learning",
  settings: [
    {
      id: "Kleinod.Acceleration.Learning",
      category: ["Kleinod", "Acceleration", "Learn from uncached runs"],
      name: "Learn from uncached runs",
      tooltip:
        "Klein Sampler without acceleration then notes how alike the steps of a run are, and from four different " +
        "prompts on whether other steps than usual are worth computing. Kept on this computer only: a table of numbers " +
        "a run and a short code of its prompt, no text and no picture.",
      type: () => makeLearningPanel(),
      defaultValue: "",
    },
  ],
});
