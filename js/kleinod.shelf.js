// @ts-check
/**
 * Kleinod's templates on ComfyUI's shelf: in an order of learning, each with a line that says what it is for. The page
 * has an extension's templates in the order in which the disk lists them, and has no more to say of one than its name.
 */
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { inOrder, TEMPLATES } from "./lib/shelf.js";
import { say } from "./lib/words.js";

const CARD = "template-workflow-";
const OWN = "kleinod-purpose";
const PAUSE_MILLISECONDS = 100; // the page changes often, the shelf hardly ever

/**
 * Page 1.47 repeats the name below it, 1.58 leaves it at the title.
 *
 * @param {Element} card
 */
function describe(card) {
  const name = String(card.getAttribute("data-testid")).slice(CARD.length);
  const text = TEMPLATES[name];
  /** @type {HTMLElement | null} */
  const own = card.querySelector(`.${OWN}`);
  if (own) {
    // The page may use the card for another template.
    if (!text) own.remove();
    else if (own.textContent !== say(text)) own.textContent = own.title = say(text);
    return;
  }
  if (!text) return;
  const line = card.querySelector("p");
  if (!line) {
    const added = document.createElement("p");
    added.className = `${OWN} m-0 text-sm text-muted-foreground`;
    added.textContent = added.title = say(text);
    card.querySelector("h3")?.after(added);
    // Somebody else's template of this name says something else.
  } else if (line.title.replace(/ +/g, " ") === name.replace(/[-_]/g, " ").replace(/ +/g, " ")) {
    line.textContent = line.title = say(text);
  }
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
