// @ts-check
/** {day|night} in a prompt: one of the two, drawn anew each time. A pure function over text. */

const GROUP = /\{[^{}]*\}/g;
const HIDDEN = /\\[{}|]/g;

/**
 * Replaces each {one|other} by one of its parts, from the inside out. Braces without a bar stay, and \{, \| and \}
 * stand for themselves.
 * @param {string} text
 * @param {() => number} [draw] from 0 up to, but not including, 1
 */
export function pickWildcards(text, draw = Math.random) {
  /** @type {string[]} what is put aside, so that no later round reads it again */
  const aside = [];
  const put = (/** @type {string} */ kept) => `\uE000${aside.push(kept) - 1}\uE001`;
  let open = text.replace(HIDDEN, (mark) => put(mark[1]));
  for (let before = ""; before !== open; ) {
    before = open;
    open = open.replace(GROUP, (group) => {
      const parts = group.slice(1, -1).split("|");
      return parts.length < 2 ? put(group) : parts[Math.floor(draw() * parts.length)];
    });
  }
  while (/\uE000\d+\uE001/.test(open)) open = open.replace(/\uE000(\d+)\uE001/g, (_, number) => aside[Number(number)]);
  return open;
}
