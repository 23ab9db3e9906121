// @ts-check
/** Choices of Kleinod's nodes in the page's language. What is saved and sent stays the choice itself. */
import { app } from "../../scripts/app.js";
import { nameChoice, namesChoices } from "./lib/words.js";

app.registerExtension({
  name: "kleinod.choices",
  nodeCreated(node) {
    const { comfyClass = "" } = node;
    for (const { name, options } of node.widgets ?? []) {
      if (!namesChoices(comfyClass, name) || options.getOptionLabel) continue;
      options.getOptionLabel = (choice = "") => nameChoice(comfyClass, name, choice ?? "");
    }
  },
});
