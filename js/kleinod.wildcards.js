// @ts-check
/**
 * Prompts go out as they were typed: JSON keeps its braces, an address what follows its slashes. Who wants ComfyUI's
 * wildcards asks for them in a node's menu; then {day|night} is replaced by one of the two on every run, and still
 * nothing else is touched.
 */
import { app } from "../../scripts/app.js";
import { isOurs } from "./lib/widgets.js";
import { pickWildcards } from "./lib/wildcards.js";
import { say } from "./lib/words.js";

/** @import {GraphNode, Widget} from "../../scripts/app.js" */

/** Where the choice is kept: with the node, so that a saved workflow and a copied node have it. */
const PROPERTY = "kleinod_wildcards";
const PROMPT = /(^|_)(prompts?|positive|negative)$/;

/** @param {GraphNode} node @returns {Widget[]} the node's fields for prompts */
const promptsOf = (node) =>
  isOurs(node) ? (node.widgets ?? []).filter((widget) => PROMPT.test(widget.name)) : [];

/** @param {GraphNode} node */
const isOn = (node) => node.properties?.[PROPERTY] === true;

app.registerExtension({
  name: "kleinod.wildcards",

  nodeCreated(node) {
    for (const widget of promptsOf(node)) {
      /** @param {any} saved the node as this run's workflow saves it @param {number} place */
      widget.serializeValue = (saved, place) => {
        if (!isOn(node) || typeof widget.value !== "string") return widget.value;
        const text = pickWildcards(widget.value);
        // As ComfyUI does: the picture's own workflow says what was drawn.
        if (saved?.widgets_values) saved.widgets_values[place] = text;
        return text;
      };
    }
  },

  getNodeMenuItems(node) {
    if (promptsOf(node).length === 0) return [];
    const content = isOn(node) ? say("Send prompts as typed") : say("Use wildcards: %1 becomes one of the two", "{day|night}");
    return [
      {
        content,
        callback: () => {
          node.properties[PROPERTY] = !isOn(node);
          node.graph?.setDirtyCanvas(true, true);
        },
      },
    ];
  },
});
