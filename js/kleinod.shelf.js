// @ts-check
/**
 * Kleinod's templates on ComfyUI's shelf: in an order of learning, each with a line that says what it is for. The page
 * has an extension's templates in the order in which the disk lists them, and repeats their names for a description.
 */
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { inOrder, TEMPLATES } from "./lib/shelf.js";
import { say } from "./lib/words.js";

const CARD = "template-workflow-";
const PAUSE_MILLISECONDS = 100; // the page changes often, the shelf hardly ever

/** @param {Element} card */
function describe(card) {
  const name = String(card.getAttribute("data-testid")).slice(CARD.length);
  const text = TEMPLATES[name];
  const line = card.querySelector("p");
  // Somebody else's template of this name says something else.
  if (!text || !line || line.title.replace(/ +/g, " ") !== name.replace(/[-_]/g, " ").replace(/ +/g, " ")) return;
  line.textContent = line.title = say(text);
}

app.registerExtension({
  name: "kleinod.shelf",
  init() {
    const given = api.getWorkflowTemplates;
    api.getWorkflowTemplates = async function () {
      const found = await given.call(api);
      return Object.fromEntries(Object.entries(found).map(([pack, names]) => [pack, inOrder(names)]));
    };
    let waiting = 0;
    const describeAll = () => {
      waiting = 0;
      document.querySelectorAll(`[data-testid^="${CARD}"]`).forEach(describe);
    };
    new MutationObserver(() => (waiting ||= setTimeout(describeAll, PAUSE_MILLISECONDS))).observe(document.body, {
      childList: true,
      subtree: true,
    });
  },
});
