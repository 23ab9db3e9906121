// @ts-check
/** Page elements without a framework: pure makers, no side effects on import. */

/**
 * What an element is made with: its own properties and listeners, `aria-*` as attributes, `style` and `data` as objects.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @typedef {Partial<Omit<HTMLElementTagNameMap[Tag], "style" | "dataset" | "children">> & {
 *   style?: Partial<CSSStyleDeclaration>, data?: Record<string, string | number>, [aria: `aria-${string}`]: string,
 * }} Properties
 */

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Properties<Tag>} [properties]
 * @param {(Node | string)[]} children
 */
export function make(tag, properties, ...children) {
  const { style, data, ...rest } = /** @type {Properties<"div">} */ (properties ?? {});
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(rest)) {
    if (name.startsWith("aria-") || name === "role") element.setAttribute(name, String(value));
    else if (typeof value === "function") element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else Object.assign(element, { [name]: value });
  }
  Object.assign(element.style, style ?? {});
  Object.assign(element.dataset, data ?? {});
  element.append(...children);
  return element;
}

/** @param {string} name a style sheet of the folder above */
export function addStyles(name) {
  document.head.append(make("link", { rel: "stylesheet", href: new URL(`../${name}`, import.meta.url).href }));
}

/**
 * A panel on top of the page below (or above) `anchor`, until a click elsewhere, Escape, or a wheel outside it.
 * It hangs on the body: inside a node it would be scaled, clipped and covered.
 * @param {HTMLElement} anchor
 * @param {HTMLElement} content
 * @param {() => void} [onClose]
 * @returns {() => void} closes it
 */
export function openPanel(anchor, content, onClose) {
  const panel = make("div", { className: "kleinod-panel", role: "dialog" }, content);
  const controller = new AbortController();
  const close = () => {
    if (controller.signal.aborted) return;
    controller.abort();
    panel.remove();
    onClose?.();
  };
  const place = () => {
    const at = anchor.getBoundingClientRect();
    const size = panel.getBoundingClientRect();
    const below = at.bottom + 4 + size.height <= innerHeight || at.top < size.height;
    const top = below ? Math.min(at.bottom + 4, innerHeight - size.height - 8) : at.top - 4 - size.height;
    panel.style.left = `${Math.max(8, Math.min(at.left, innerWidth - size.width - 8))}px`;
    panel.style.top = `${Math.max(8, top)}px`;
  };
  const outside = (/** @type {Event} */ event) => {
    if (!(event.target instanceof Node && panel.contains(event.target))) close();
  };
  document.body.append(panel);
  place();
  new ResizeObserver(() => !controller.signal.aborted && place()).observe(content);
  const listen = { capture: true, signal: controller.signal };
  addEventListener("pointerdown", outside, listen);
  addEventListener("wheel", outside, { ...listen, passive: true });
  panel.addEventListener("keydown", (event) => {
    event.stopPropagation(); // the page's own shortcuts are not meant here
    if (event.key === "Escape") close();
  });
  return close;
}

/** A panel of the settings, a line of it, and a field or button in that. */
export const COLUMN = { display: "flex", flexDirection: "column", gap: "4px", maxWidth: "34em" };
export const ROW = { display: "flex", gap: "6px", alignItems: "center", flexWrap: "wrap" };
export const FIELD = {
  padding: "4px 8px",
  borderRadius: "6px",
  border: "1px solid var(--border-color, #555)",
  background: "var(--comfy-input-bg, #222)",
  color: "var(--input-text, #ddd)",
};
export const BUTTON = { ...FIELD, cursor: "pointer" };

/** What a panel tells, in one line or many. */
export const NEWS = { fontSize: "0.85em", opacity: "0.85", minHeight: "1.4em", overflowWrap: "anywhere", whiteSpace: "pre-line" };

/** Hides a panel until it shows what is stored. @param {HTMLElement} panel @param {Promise<unknown>} known */
export function showOnceKnown(panel, known) {
  panel.style.visibility = "hidden";
  known.then(() => (panel.style.visibility = ""));
  return panel;
}

/**
 * A button that cannot be pressed again while its work goes on.
 * @param {string} label
 * @param {() => Promise<void>} work
 * @param {(error: unknown) => void} complain is told what went wrong
 */
export function makeButton(label, work, complain) {
  const element = make("button", { type: "button", textContent: label, style: BUTTON });
  element.addEventListener("click", async () => {
    element.disabled = true;
    try {
      await work();
    } catch (error) {
      complain(error);
    } finally {
      element.disabled = false;
    }
  });
  return element;
}
