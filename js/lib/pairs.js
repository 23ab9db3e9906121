// @ts-check
/** Lines such as "name = file", as the settings' panel shows a table. Pure functions. */

/** @param {string} text @returns {Record<string, string>} a line without "=" is kept as a name without a file */
export function readPairs(text) {
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  return Object.fromEntries(
    lines.map((line) => {
      const at = line.indexOf("=");
      return at < 0 ? [line, ""] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
    }),
  );
}

/** @param {Record<string, string>} pairs */
export const writePairs = (pairs) => Object.entries(pairs).map(([name, file]) => `${name} = ${file}`).join("\n");
