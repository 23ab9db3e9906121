// @ts-check
// The numbers of nodes/faces/presets.py, for the widgets of Klein Face Settings; a test keeps both alike.

export const CUSTOM = "custom";

const PERCENT = "percent of the face";
const KLEIN = {
  confidence: 0.35,
  mask_padding: 12,
  mask_blur: 15,
  mask_unit: PERCENT,
  strength: 0.55,
  steps: 20,
  guidance: 4,
};

/** @type {Record<string, typeof KLEIN>} */
export const PRESETS = {
  Klein: KLEIN,
  "Klein distilled": { ...KLEIN, steps: 4, guidance: 1 },
  "API defaults": {
    confidence: 0.9,
    mask_padding: 5,
    mask_blur: 5,
    mask_unit: "pixels",
    strength: 0.3,
    steps: 20,
    guidance: 8,
  },
};

/**
 * The numbers a preset sets; none for custom.
 * @param {string} preset
 * @returns {Partial<typeof KLEIN>}
 */
export function numbersOf(preset) {
  return PRESETS[preset] ?? {};
}
