// @ts-check
/** What Kleinod's scripts say, in the language of the page. Pure: who loads the words is lib/language.js. */

/** English sentence -> that of the language. @type {Record<string, string>} */
let known = {};

/** @param {Record<string, string>} words */
export function learn(words) {
  known = words;
}

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

/** Marks a text that `say` gets later, so that it is translated, too. @param {string} english */
export const noted = (english) => english;
