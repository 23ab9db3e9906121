// @ts-check
/**
 * Runware's `imageInference` request and Kleinod's widgets, translated both ways: pure functions over plain objects.
 *
 * A node's values travel as `{widget name: value}`. What a request leaves open and what changes the picture goes back
 * to Runware's default; where its files and addresses go is left as the node has it.
 */

import { PRESETS } from "./face_presets.js";
import { parseRows } from "./lora_rows.js";

const MODEL = "runware:400@5";
const OPTION_FIELDS = {
  cacheStartStep: "cache_start_step",
  cacheEndStep: "cache_end_step",
  cacheStartStepPercentage: "cache_start_step_percentage",
  cacheEndStepPercentage: "cache_end_step_percentage",
  cacheMaxConsecutiveSteps: "cache_max_consecutive_steps",
  fbCache: "fb_cache",
  fbCacheThreshold: "fb_cache_threshold",
  teaCache: "tea_cache",
  teaCacheDistance: "tea_cache_distance",
  dbCache: "db_cache",
  dbCacheThreshold: "db_cache_threshold",
  dbCacheSkipInterval: "db_cache_skip_interval",
};
const API_THRESHOLDS = "lower reuses more (Runware text)";
/** What Runware takes where a request with acceleratorOptions leaves one open; -1 is not set. */
const OPTION_DEFAULTS = {
  threshold_meaning: API_THRESHOLDS,
  cache_start_step: -1,
  cache_end_step: -1,
  cache_start_step_percentage: -1,
  cache_end_step_percentage: -1,
  cache_max_consecutive_steps: 3,
  fb_cache: false,
  fb_cache_threshold: 0.25,
  tea_cache: false,
  tea_cache_distance: 0.5,
  db_cache: false,
  db_cache_threshold: 0.25,
  db_cache_skip_interval: 5,
};
const FACE_FIELDS = {
  confidence: "confidence",
  maskPadding: "mask_padding",
  maskBlur: "mask_blur",
  strength: "strength",
  steps: "steps",
  CFGScale: "guidance",
  positivePrompt: "positive_prompt",
  negativePrompt: "negative_prompt",
};
const UNTRANSLATED = new Set(["taskType", "taskUUID", "webhookURL", "uploadEndpoint", "outputType", "user"]);

/**
 * The first picture request in a text: one task, a list of tasks, or an object that holds such a list.
 * @param {string} text
 * @returns {Record<string, any>}
 */
export function readRequest(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error("The text is not JSON. Copy a whole Runware request, from { to }.");
  }
  const candidates = [value, value?.tasks, value?.data].flat().filter((task) => task && typeof task === "object");
  const found = candidates.find((task) => task.taskType === "imageInference" || typeof task.positivePrompt === "string");
  if (!found) throw new Error("The JSON holds no Runware imageInference request (none with a positivePrompt).");
  return found;
}

/** @param {Record<string, any>} values drops what is undefined */
const given = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));

/** @param {Record<string, string>} fields @param {Record<string, any>} from keys renamed, the rest dropped */
const rename = (fields, from) => given(Object.fromEntries(Object.entries(fields).map(([api, own]) => [own, from[api]])));

/**
 * @param {Record<string, any>} task
 * @returns {{runware: Record<string, any>, sampler: Record<string, any>, prompt: Record<string, any>,
 *   acceleration: Record<string, any> | null, rows: string, face: Record<string, any> | null, warnings: string[]}}
 */
export function planPaste(task) {
  const warnings = [];
  const shared = given({ width: task.width, height: task.height, steps: task.steps, seed: task.seed });
  const scheduler = task.scheduler === "EulerDiscreteScheduler" ? "Euler DiscreteScheduler" : (task.scheduler ?? "Default");
  const prompt = { positive: task.positivePrompt ?? "", negative: task.negativePrompt ?? "" };
  const level = task.acceleration ?? "high";
  const runware = given({
    ...shared,
    scheduler,
    positive_prompt: prompt.positive,
    negative_prompt: prompt.negative,
    cfg_scale: task.CFGScale ?? 3.5,
    number_results: task.numberResults ?? 1,
    model: task.model ?? MODEL,
    acceleration_level: level,
    true_cfg_scale: task.settings?.trueCFGScale ?? 0,
    output_format: task.outputFormat,
    output_quality: task.outputQuality,
    check_content: task.safety && (task.safety.checkContent ?? false),
    safety_mode: task.safety && (task.safety.mode ?? "none"),
    ttl: task.ttl,
    include_cost: task.includeCost,
    delivery_method: task.deliveryMethod,
  });
  const guidance = task.settings?.trueCFGScale ?? task.CFGScale;
  const sampler = given({ ...shared, scheduler, guidance, results: task.numberResults ?? 1, acceleration: level });
  const options = task.acceleratorOptions;
  const acceleration = options && {
    acceleration: level,
    ...OPTION_DEFAULTS,
    ...rename(OPTION_FIELDS, options),
  };
  /** @type {{model: string, weight?: number, transformer?: string}[]} */
  const loras = task.lora ?? [];
  const rows = loras.map(({ model, weight = 1, transformer = "both" }) =>
    [weight, transformer === "both" ? "" : transformer, `air=${model}`].filter((word) => word !== "").join(" "),
  );
  const ultralytics = task.advancedFeatures?.ultralytics;
  const defaults = { ...PRESETS["API defaults"], positive_prompt: "", negative_prompt: "" };
  const face = ultralytics ? { preset: "custom", ...defaults, ...rename(FACE_FIELDS, ultralytics) } : null;
  const references = task.inputs?.referenceImages?.length ?? task.referenceImages?.length ?? 0;
  if (references) {
    const what = references === 1 ? "1 reference image is an address" : `${references} reference images are addresses`;
    warnings.push(`${what}, which a graph cannot hold: load them with Load Image and connect Klein References.`);
  }
  const known = new Set([
    ...UNTRANSLATED,
    ..."model positivePrompt negativePrompt width height steps CFGScale settings seed scheduler numberResults".split(" "),
    ..."acceleration acceleratorOptions lora inputs referenceImages advancedFeatures outputFormat".split(" "),
    ..."outputQuality safety ttl includeCost deliveryMethod".split(" "),
  ]);
  const unknown = Object.keys(task).filter((name) => !known.has(name));
  if (unknown.length) warnings.push(`Not used: ${unknown.join(", ")}.`);
  return { runware, sampler, prompt, acceleration: acceleration ?? null, rows: rows.join("\n"), face, warnings };
}

/**
 * What a graph's nodes say, as one request. Only what is set is written, as the node itself would send it.
 * @param {{runware?: Record<string, any>, sampler?: Record<string, any>, prompt?: Record<string, any>,
 *   acceleration?: Record<string, any> | null, rows?: string, face?: Record<string, any> | null}} nodes
 * @param {string} taskUUID
 */
export function buildRequest(nodes, taskUUID) {
  const { runware, sampler, acceleration, face } = nodes;
  const values = runware ?? sampler ?? {};
  const prompt = nodes.prompt ?? { positive: runware?.positive_prompt ?? "", negative: runware?.negative_prompt ?? "" };
  const results = values.number_results ?? values.results ?? 1;
  const trueCfg = runware ? runware.true_cfg_scale : sampler?.guidance;
  const level = acceleration?.acceleration ?? values.acceleration_level ?? values.acceleration ?? "high";
  const format = runware?.output_format;
  const safety = given({ checkContent: runware?.check_content || undefined, mode: cut(runware?.safety_mode, "none") });
  return given({
    taskType: "imageInference",
    taskUUID,
    model: runware?.model ?? MODEL,
    positivePrompt: prompt.positive,
    negativePrompt: prompt.negative || undefined,
    width: values.width,
    height: values.height,
    seed: values.seed,
    steps: values.steps,
    CFGScale: runware ? runware.cfg_scale : 3.5,
    settings: trueCfg ? { trueCFGScale: trueCfg } : undefined,
    scheduler: spell(values.scheduler),
    numberResults: results > 1 ? results : undefined,
    outputFormat: format,
    outputQuality: format && format !== "PNG" ? runware?.output_quality : undefined,
    safety: Object.keys(safety).length ? safety : undefined,
    ttl: runware?.ttl || undefined,
    includeCost: runware?.include_cost || undefined,
    deliveryMethod: runware?.delivery_method,
    acceleration: level,
    acceleratorOptions: acceleration ? collectOptions(acceleration) : undefined,
    lora: readAirRows(nodes.rows ?? ""),
    advancedFeatures: face ? { ultralytics: collectFace(face) } : undefined,
  });
}

/** @param {any} value @param {any} silent */
const cut = (value, silent) => (value === silent ? undefined : value);

/** "Kleinod Fast" and the default are not Runware's. @param {string | undefined} scheduler */
function spell(scheduler) {
  if (!scheduler || scheduler === "Default" || scheduler.startsWith("Kleinod")) return undefined;
  return scheduler === "Euler DiscreteScheduler" ? "EulerDiscreteScheduler" : scheduler;
}

/** @param {Record<string, any>} values */
function collectOptions(values) {
  const turned = values.threshold_meaning !== API_THRESHOLDS;
  const outward = (/** @type {number} */ value) => (turned ? Math.round((1 - value) * 100) / 100 : value);
  /** @type {Record<string, any>} */
  const options = {};
  if (values.fb_cache) Object.assign(options, { fbCache: true, fbCacheThreshold: outward(values.fb_cache_threshold) });
  if (values.tea_cache) Object.assign(options, { teaCache: true, teaCacheDistance: values.tea_cache_distance });
  if (values.db_cache) {
    const interval = values.db_cache_skip_interval;
    const threshold = outward(values.db_cache_threshold);
    Object.assign(options, { dbCache: true, dbCacheThreshold: threshold, dbCacheSkipInterval: interval });
  }
  for (const [api, own] of Object.entries(OPTION_FIELDS).slice(0, 4)) if (values[own] >= 0) options[api] = values[own];
  const most = values.cache_max_consecutive_steps;
  return Object.keys(options).length || most !== 3 ? { ...options, cacheMaxConsecutiveSteps: most } : undefined;
}

/** @param {Record<string, any>} values */
function collectFace(values) {
  const entries = Object.entries(FACE_FIELDS).map(([api, own]) => [api, values[own]]);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined && String(value).trim() !== ""));
}

/** The rows that have an AIR id and act. @param {string} text the rows of Klein LoRA Stack */
function readAirRows(text) {
  const rows = parseRows(text).flatMap((line) => {
    if (line.kind !== "row" || !line.enabled || !line.weight || !line.air) return [];
    return [given({ model: line.air, weight: line.weight, transformer: cut(line.stage, "both") })];
  });
  return rows.length ? rows : undefined;
}
