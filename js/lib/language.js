// @ts-check
/** Brings lib/words.js the words of the page's language. No side effects on import. */
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { learn, learnChoices } from "./words.js";

/** @type {Promise<void> | undefined} */
let learning;

/** ComfyUI keeps the languages of all packs; ours lie under `kleinod`. Once a page: its language changes by a reload. */
export function learnLanguage() {
  learning ??= (async () => {
    const language = String(app.extensionManager?.setting?.get?.("Comfy.Locale") ?? "en");
    if (language === "en") return;
    try {
      const books = await (await api.fetchApi("/i18n")).json();
      const book = books[language]?.kleinod ? books[language] : books[language.split("-")[0]];
      learn(book?.kleinod ?? {});
      learnChoices(book?.nodeDefs ?? {});
    } catch {
      // Without the words the scripts speak English.
    }
  })();
  return learning;
}
