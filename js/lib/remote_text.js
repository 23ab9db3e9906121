// @ts-check
/** The words of the settings panel: pure functions, no side effects. */
import { noted, say } from "./words.js";

/** @typedef {{run_usd: number, day_usd: number, concurrency: number}} Limits USD; 0 = none */

/**
 * @param {{set: boolean, source: string, hint: string} | undefined} key
 * @returns {string}
 */
export function describeKey(key) {
  if (!key?.set) return say("No key stored for this account.");
  /** @type {Record<string, string>} */
  const places = { file: noted("stored on this computer"), environment: noted("from the environment"), keyring: noted("from the keyring") };
  return say("Key %1, %2.", key.hint, say(places[key.source] ?? key.source));
}

/**
 * @param {Limits} limits
 * @param {number} spent USD since midnight
 * @returns {string}
 */
export function describeSpending(limits, spent) {
  if (limits.day_usd > 0) return say("$%1 spent today, of $%2.", spent.toFixed(4), limits.day_usd.toFixed(2));
  return say("$%1 spent today.", spent.toFixed(4));
}

/**
 * @param {string} text what stands in a number field; empty means no limit
 * @returns {number}
 */
export function parseLimit(text) {
  const value = Number(text.trim() || "0");
  if (!Number.isFinite(value) || value < 0) throw new Error(say("A limit is a number from 0 (none) on."));
  return value;
}
