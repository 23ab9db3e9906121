// @ts-check
/**
 * The text of Klein LoRA Stack's rows: the JavaScript twin of `nodes/loras/rows.py`, whose head shows the grammar.
 * Pure functions, no side effects. Lines nobody can read, and remarks, are kept as they are.
 *
 * The only rule of the pack that a script says again: rows are drawn while they are typed, and a question to the server
 * for each key would be felt. `tests/core/test_javascript_twins.py` keeps both alike.
 */

/**
 * @typedef {{kind: "row", file: string, weight: number, stage: string, enabled: boolean, air: string, sha256: string}}
 *   Row
 * @typedef {{kind: "remark", text: string}} Remark
 * @typedef {{kind: "broken", text: string}} Broken a line that the node will refuse
 * @typedef {Row | Remark | Broken} Line
 */

export const STAGES = ["both", "high", "low"];
export const LEAST_WEIGHT = -4;
export const MOST_WEIGHT = 4;

const TAG = /<lora:([^:<>]+)(?::([^:<>]*))?(?::[^<>]*)?>/gi;
const QUOTED = /^(["'])(.+?)\1(?:\s+|$)/;
const NAMED = /^(.+?\.(?:safetensors|sft))(?:\s+|$)/i;
const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)$/;

/**
 * @param {string} file
 * @param {Partial<Row>} [fields]
 * @returns {Row}
 */
export function makeRow(file, fields = {}) {
  return { kind: "row", file, weight: 1, stage: "both", enabled: true, air: "", sha256: "", ...fields };
}

/**
 * @param {string} text
 * @returns {Line[]} without the empty lines
 */
export function parseRows(text) {
  /** @type {Line[]} */
  const lines = [];
  for (const raw of text.split(/\r\n|\r|\n/)) {
    const line = raw.trim();
    if (line === "") continue;
    if (line.startsWith("#")) lines.push({ kind: "remark", text: line });
    else lines.push(...readLine(line));
  }
  return lines;
}

/**
 * @param {Line[]} lines
 * @returns {string}
 */
export function formatRows(lines) {
  return lines.map((line) => (line.kind === "row" ? formatRow(line) : line.text)).join("\n");
}

/**
 * @param {Row} row
 * @returns {string}
 */
export function formatRow(row) {
  let name = row.file;
  const plain = name.match(NAMED);
  if (name && (plain?.[1] !== name || `"'#<`.includes(name[0]))) name = name.includes('"') ? `'${name}'` : `"${name}"`;
  const words = name ? [name] : [];
  words.push(String(row.weight));
  if (row.stage !== "both") words.push(row.stage);
  if (!row.enabled) words.push("off");
  if (row.air) words.push(`air=${row.air}`);
  if (row.sha256) words.push(`sha256=${row.sha256}`);
  return words.join(" ");
}

/**
 * @param {number} weight
 * @returns {number} in range, in hundredths
 */
export function tidyWeight(weight) {
  const held = Math.min(MOST_WEIGHT, Math.max(LEAST_WEIGHT, weight));
  return Math.round(held * 100) / 100 + 0; // + 0: no minus in front of a zero
}

/**
 * Files whose name holds every word of the search, those with it in the name proper before those with it in a folder.
 * @param {string[]} files
 * @param {string} search
 * @returns {string[]}
 */
export function searchFiles(files, search) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = files.filter((file) => words.every((word) => file.toLowerCase().includes(word)));
  const inName = (/** @type {string} */ file) => words.every((word) => splitName(file).name.toLowerCase().includes(word));
  return [...found.filter(inName), ...found.filter((file) => !inName(file))];
}

/**
 * @param {string} file
 * @returns {{folder: string, name: string}} folder with its slash, name without the ending
 */
export function splitName(file) {
  const path = file.replaceAll("\\", "/");
  const cut = path.lastIndexOf("/") + 1;
  return { folder: path.slice(0, cut), name: path.slice(cut).replace(/\.(safetensors|sft)$/i, "") };
}

/**
 * @param {Line[]} lines
 * @param {number} from
 * @param {number} to the index before which it shall stand, counted with the moved line still in place
 * @returns {Line[]}
 */
export function moveLine(lines, from, to) {
  const left = lines.filter((_, index) => index !== from);
  left.splice(to > from ? to - 1 : to, 0, lines[from]);
  return left;
}

/**
 * @param {string} line
 * @returns {Line[]}
 */
function readLine(line) {
  const broken = /** @type {Line[]} */ ([{ kind: "broken", text: line }]);
  const tags = [...line.matchAll(TAG)];
  if (tags.length > 0) {
    const rows = tags.map((tag) => makeRow(slashed(tag[1].trim()), { weight: readNumber((tag[2] || "1").trim()) }));
    return rows.every(isSound) ? rows : broken;
  }
  const quoted = line.match(QUOTED);
  const match = quoted ?? line.match(NAMED);
  let name = quoted ? quoted[2] : match?.[1];
  let words = match ? split(line.slice(match[0].length)) : split(line);
  if (name === undefined) {
    let end = words.length;
    while (end > 0 && readWord(words[end - 1])) end -= 1;
    name = words.slice(0, end).join(" ");
    words = words.slice(end);
  }
  const row = makeRow(slashed(name));
  const said = new Set();
  for (const word of words) {
    const field = readWord(word);
    if (field === null || said.has(field[0])) return broken;
    said.add(field[0]);
    Object.assign(row, { [field[0]]: field[1] });
  }
  return isSound(row) ? [row] : broken;
}

/**
 * @param {string} word
 * @returns {[string, string | number | boolean] | null} field and value
 */
function readWord(word) {
  const lower = word.toLowerCase();
  if (NUMBER.test(word)) return ["weight", Number(word)];
  if (STAGES.includes(lower)) return ["stage", lower];
  if (lower === "on" || lower === "off") return ["enabled", lower === "on"];
  if (lower.startsWith("air=")) return ["air", word.slice(4)];
  if (lower.startsWith("sha256=")) return ["sha256", lower.slice(7)];
  return null;
}

/** @param {Row} row */
function isSound(row) {
  const named = row.file !== "" || row.air !== "";
  const weighed = row.weight >= LEAST_WEIGHT && row.weight <= MOST_WEIGHT;
  return named && weighed && /^([0-9a-f]{64})?$/.test(row.sha256) && (row.air === "" || isAir(row.air));
}

/**
 * @param {string} text
 * @returns {boolean}
 */
export function isAir(text) {
  return text.includes(":") && !/\s/.test(text);
}

/** @param {string} text */
function readNumber(text) {
  return NUMBER.test(text) ? Number(text) : Number.NaN;
}

/** @param {string} text */
function slashed(text) {
  return text.replaceAll("\\", "/");
}

/** @param {string} text */
function split(text) {
  return text.split(/\s+/).filter(Boolean);
}
