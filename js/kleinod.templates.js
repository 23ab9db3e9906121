// @ts-check
/**
 * Opens Kleinod's templates so that they can be read, with titles and notes in the page's language. ComfyUI fits a
 * template into three quarters of the page, which on a small one is below the size from which text is drawn.
 *
 * Only the shipped file is marked; the mark goes when it is opened, so a user's own copy, a tab gone back to and
 * undoing keep the view they had.
 */
import { app } from "../../scripts/app.js";
import { LOADER, useOwnFiles } from "./lib/own_files.js";
import { boundsOf, planView } from "./lib/view.js";
import { say, sayParagraphs } from "./lib/words.js";

/** @import {GraphNode} from "../../scripts/app.js" */
/** @import {Box} from "./lib/view.js" */

const MARK = "kleinod_template";
const OWN_FILES = "own files"; // of the template that takes the user's files as soon as they are there
const TITLE_HEIGHT = 30;

app.registerExtension({
  name: "kleinod.templates",
  afterConfigureGraph() {
    const { rootGraph, canvas } = app;
    const mark = rootGraph.extra?.[MARK];
    if (!mark) return;
    delete rootGraph.extra[MARK];
    for (const node of rootGraph.nodes) {
      node.title = say(node.title);
      const [note] = node.type === "MarkdownNote" ? (node.widgets ?? []) : [];
      if (note) note.value = sayParagraphs(String(note.value));
    }
    for (const group of rootGraph.groups) {
      const [, number, title] = group.title.match(/^(\d+ +)?(.*)$/) ?? [];
      group.title = (number ?? "") + say(title);
    }
    /** @type {Box[]} */
    const nodes = rootGraph.nodes.map((node) => [
      node.pos[0],
      node.pos[1] - TITLE_HEIGHT,
      node.size[0],
      node.size[1] + TITLE_HEIGHT,
    ]);
    /** @type {Box[]} */
    const groups = rootGraph.groups.map((group) => [group.pos[0], group.pos[1], group.size[0], group.size[1]]);
    const { scale, offset } = planView(boundsOf([...nodes, ...groups]), {
      width: canvas.canvas.clientWidth,
      height: canvas.canvas.clientHeight,
    });
    Object.assign(canvas.ds, { scale, offset });
    canvas.setDirty(true, true);
    const loader = /** @type {GraphNode | undefined} */ (rootGraph.nodes.find((node) => node.comfyClass === LOADER));
    if (mark === OWN_FILES && loader) useOwnFiles(loader).catch(() => {}); // klein-nano stays
  },
});
