// @ts-check
/**
 * Sentences of the server in the language of the page. Pure.
 *
 * The server speaks English: `say` in nodes/base/sentences.py makes its sentences of the patterns that lib/words.js
 * knows. Here a line is taken apart again: a pattern as a whole, with its values said in their turn; else part by part.
 * What is no pattern (names, numbers, words of a service) stays as it came.
 */
import { listKnown, say } from "./words.js";

/** @typedef {{english: string, form: RegExp, places: string[], quoted: string[], weight: number}} Pattern */

/** @type {Pattern[] | null} */
let patterns = null;
/** @type {Record<string, string> | null} */
let readFrom = null;

const escape = (/** @type {string} */ text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/**
 * A whole sentence ends with a full stop, and its values may hold anything. A part of a line does not: there a comma,
 * semicolon, colon, full stop or wide space ends a value, unless it is the last one, behind a colon, in quotes or in
 * brackets.
 * @param {string} english
 * @returns {Pattern}
 */
function readPattern(english) {
  const whole = english.endsWith(".");
  /** @type {string[]} */
  const places = [];
  const quoted = [...english.matchAll(/"(%\d)"/g)].map((found) => found[1]);
  const pieces = english.split(/(%\d)/);
  const form = pieces.map((piece, index) => {
    if (!/^%\d$/.test(piece)) return escape(piece);
    if (places.includes(piece)) return `\\${places.indexOf(piece) + 1}`;
    places.push(piece);
    if (whole) return "(.+?)";
    const last = index === pieces.length - 2 && /^[")]?$/.test(pieces[index + 1]) && /(: |"|\()$/.test(pieces[index - 1]);
    return last ? "(.+)" : "((?:(?!, |; |: |\\. | {2}).)+?)";
  });
  return { english, form: new RegExp(`^${form.join("")}$`), places, quoted, weight: english.replace(/%\d/g, "").length };
}

function listPatterns() {
  const known = listKnown();
  if (!patterns || readFrom !== known) {
    readFrom = known;
    patterns = Object.keys(known)
      .filter((english) => /%\d/.test(english) && !english.includes("\n"))
      .map(readPattern)
      .sort((one, other) => other.weight - one.weight);
  }
  return patterns;
}

/**
 * One pattern with its values, or null.
 * @param {string} text
 * @param {boolean} [parts] whether parts of a line count, too, or whole sentences alone
 * @returns {string | null}
 */
function sayPattern(text, parts = true) {
  const known = listKnown();
  if (Object.hasOwn(known, text)) return known[text];
  const small = text.charAt(0).toLowerCase() + text.slice(1); // a part that begins a sentence
  if (Object.hasOwn(known, small)) return known[small].charAt(0).toUpperCase() + known[small].slice(1);
  for (const { english, form, places, quoted } of listPatterns()) {
    const found = parts || english.endsWith(".") ? form.exec(text) : null;
    if (!found) continue;
    /** @type {string[]} */
    const values = [];
    places.forEach((place, index) => {
      values[Number(place[1]) - 1] = quoted.includes(place) ? found[index + 1] : sayLine(found[index + 1]);
    });
    return say(english, ...values);
  }
  const end = text.at(-1) ?? "";
  if (!parts || !".)".includes(end) || text.length < 2) return null;
  const before = sayPattern(text.slice(0, -1)); // a part that ends the sentence it stands in
  return before === null ? null : before + end;
}

const BREAK = /\. |\? |, |; |: | \(| {2,}/g;

/** @param {string} line @returns {string} */
function sayLine(line) {
  const sentence = sayPattern(line, false);
  if (sentence !== null || !/[a-z]/.test(line)) return sentence ?? sayPattern(line) ?? line;
  const breaks = [...line.matchAll(BREAK)].map(({ 0: mark, index }) => {
    const start = /^[.?]/.test(mark) ? index + 1 : index; // the full stop is the sentence's
    return { start, end: index + mark.length };
  });
  breaks.reverse();
  // A sentence before anything that a part of a line would take for its last value.
  for (const parts of [false, true]) {
    const whole = parts ? sayPattern(line) : null;
    if (whole !== null) return whole;
    for (const { start, end } of breaks.filter((one) => parts || /[.?]/.test(line.charAt(one.start - 1)))) {
      const part = sayPattern(line.slice(0, start), parts);
      if (part !== null) return part + line.slice(start, end) + sayLine(line.slice(end));
    }
  }
  const first = breaks.at(-1); // none is known: the rest may be
  return first ? line.slice(0, first.end) + sayLine(line.slice(first.end)) : line;
}

/**
 * Text of a node in the page's language; in English as it came.
 * @param {string} text lines, of which each may end with the two spaces that keep Markdown's lines apart
 */
export function saySentences(text) {
  if (!Object.keys(listKnown()).length) return text;
  return text
    .split("\n")
    .map((line) => {
      const [, indent, words, tail] = /^(\s*)(.*?)(\s*)$/.exec(line) ?? ["", "", line, ""];
      return indent + sayLine(words) + tail;
    })
    .join("\n");
}
