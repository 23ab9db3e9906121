// @ts-check
/** What Kleinod's scripts say, in the language of the page. Pure: who loads the words is lib/language.js. */

/** English sentence -> that of the language. @type {Record<string, string>} */
let known = {};

/** @param {Record<string, string>} words */
export function learn(words) {
  known = words;
}

/** English sentence -> that of the language; empty in English. */
export const listKnown = () => known;

/**
 * A text for the user. The English one is the key of `kleinod` in locales/<language>/main.json, and stands where a
 * language has none.
 * @param {string} english with %1, %2 ... where the values go
 * @param {(string | number)[]} values
 */
export function say(english, ...values) {
  const text = known[english] ?? english;
  return text.replace(/%(\d)/g, (mark, place) => String(values[Number(place) - 1] ?? mark));
}

/** A text of several paragraphs, each as the language has it. @param {string} english */
export const sayParagraphs = (english) => english.split(/\n{2,}/).map((one) => say(one.trim())).join("\n\n");

/** Node -> input -> choice -> its name in the language. @type {Record<string, Record<string, Record<string, string>>>} */
let choices = {};

/** @param {Record<string, {inputs?: Record<string, {options?: Record<string, string>}>}>} nodes as in nodeDefs.json */
export function learnChoices(nodes) {
  const ours = Object.entries(nodes).filter(([node]) => node.startsWith("Kleinod"));
  choices = Object.fromEntries(
    ours.map(([node, { inputs }]) => [
      node,
      Object.fromEntries(Object.entries(inputs ?? {}).map(([input, { options }]) => [input, options ?? {}])),
    ]),
  );
}

/** Whether the language has names for an input's choices. @param {string} node @param {string} input */
export const namesChoices = (node, input) => Object.keys(choices[node]?.[input] ?? {}).length > 0;

/**
 * A choice as the language calls it, and behind that the name that tooltips, files and the API know it by.
 * @param {string} node @param {string} input @param {string} choice
 */
export function nameChoice(node, input, choice) {
  const name = choices[node]?.[input]?.[choice];
  return name && name !== choice ? `${name} (${choice})` : choice;
}

/** Marks a text that `say` gets later, so that it is translated, too. @param {string} english */
export const noted = (english) => english;
