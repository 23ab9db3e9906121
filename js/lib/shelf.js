// @ts-check
/** What each template is for: pure, no side effects. */
import { noted } from "./words.js";

/** In an order of learning, that of tools/launch/workflows.py. @type {Record<string, string>} */
export const TEMPLATES = {
  "Klein - Text to Image": noted("Start here: words become four pictures. Runs without any download."),
  "Klein - Image to Image": noted("Paint over a picture with other words or upscale it; strength says how far."),
  "Klein - Edit with References": noted("Put what is in several pictures into a new one."),
  "Klein - Reference Control": noted("How much, when and where each reference counts."),
  "Klein - Inpaint": noted("Paint anew what a mask marks; the rest stays bit for bit."),
  "Klein - Outpaint": noted("Show what lies beyond the edges of a picture (uncrop)."),
  "Klein - Edit and Keep": noted("Change one thing by an edit and keep all the rest of the original."),
  "Klein - LoRA Stack": noted("Another style or subject by LoRAs, with and without side by side."),
  "Klein - Face Refine": noted("Find small faces and paint them anew at full size."),
  "Klein - Accelerated": noted("The same picture in less time, and a chart of what was skipped."),
  "Klein - Compare Acceleration": noted("Time and likeness of every way to be faster, measured on one seed."),
  "Klein - Everything": noted("Reference, LoRA, acceleration and face refiner in one graph."),
  "Klein - Runware": noted("The same model on Runware's computers, paid by the picture."),
  "Klein - BFL": noted("Distilled Klein from its makers, paid by the picture."),
  "Klein - Local or Remote": noted("One request, one switch: your GPU or the API."),
  "Klein - Your Other Machine": noted("Another machine of yours draws, asked like an API."),
};

/**
 * Ours in their order, before what else a pack has; a pack that has none of ours stays as it is.
 * @param {string[]} names
 */
export function inOrder(names) {
  const ours = Object.keys(TEMPLATES).filter((name) => names.includes(name));
  return [...ours, ...names.filter((name) => !(name in TEMPLATES))];
}
