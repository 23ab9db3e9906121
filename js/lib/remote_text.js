// @ts-check
/** The words of the settings panel: pure functions, no side effects. */

/** @typedef {{run_usd: number, day_usd: number, concurrency: number}} Limits USD; 0 = none */

/**
 * @param {{set: boolean, source: string, hint: string} | undefined} key
 * @returns {string}
 */
export function describeKey(key) {
  if (!key?.set) return "No key stored for this profile.";
  /** @type {Record<string, string>} */
  const places = { file: "stored on this computer", environment: "from the environment", keyring: "from the keyring" };
  return `Key ${key.hint}, ${places[key.source] ?? key.source}.`;
}

/**
 * @param {Limits} limits
 * @param {number} spent USD since midnight
 * @returns {string}
 */
export function describeSpending(limits, spent) {
  const today = `$${spent.toFixed(4)} spent today`;
  return limits.day_usd > 0 ? `${today}, of $${limits.day_usd.toFixed(2)}.` : `${today}.`;
}

/**
 * @param {string} text what stands in a number field; empty means no limit
 * @returns {number}
 */
export function parseLimit(text) {
  const value = Number(text.trim() || "0");
  if (!Number.isFinite(value) || value < 0) throw new Error("A limit is a number from 0 (none) on.");
  return value;
}
