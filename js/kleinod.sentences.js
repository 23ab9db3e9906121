// @ts-check
/**
 * What the server writes under Klein nodes, in the page's language: lines of progress, results and warnings, what stops
 * a node where it has a pattern, and reports that end in a Preview as Text. ComfyUI's own dialog of errors, the files
 * and the log stay as the server wrote them, so that they can be searched for.
 */
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { saySentences } from "./lib/sentences.js";
import { findShown, findSource, findWidget, follow, isOurs, TEXT_WIDGET } from "./lib/widgets.js";

/** @import {GraphNode, Widget} from "../../scripts/app.js" */

const PREVIEW = "PreviewAny";

/** @param {Widget | undefined} widget */
function sayAgain(widget) {
  if (typeof widget?.value !== "string" || /^\s*[[{]/.test(widget.value)) return; // JSON is for programs
  const said = saySentences(widget.value);
  if (said !== widget.value) widget.value = said;
}

/** A Preview as Text of what one of our nodes wrote. @param {GraphNode | null | undefined} node */
function sayReport(node) {
  if (node?.comfyClass === PREVIEW && isOurs(findSource(node, 0))) node.widgets?.forEach(sayAgain);
}

app.registerExtension({
  name: "kleinod.sentences",
  setup() {
    // The page's own listener was there before: what it has just written is said again.
    api.addEventListener("progress_text", (/** @type {CustomEvent} */ { detail }) => {
      const id = String(detail?.nodeId).split(":").at(-1) ?? "";
      const node = /** @type {GraphNode | null | undefined} */ (app.canvas.graph?.getNodeById(id));
      if (node && isOurs(node)) sayAgain(findWidget(node, TEXT_WIDGET));
    });
  },
  nodeCreated(node) {
    if (node.comfyClass === PREVIEW) follow(node, "onExecuted", () => sayReport(node));
  },
  // Outputs that are still known after undoing, or in a tab gone back to.
  onNodeOutputsUpdated(outputs) {
    for (const locator of Object.keys(outputs)) sayReport(findShown(locator));
  },
});
