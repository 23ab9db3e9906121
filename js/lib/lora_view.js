// @ts-check
/** The rows of one Klein LoRA Stack as page elements. No side effects on import. */
import { app } from "../../../scripts/app.js";
import { make, openPanel } from "./elements.js";
import { listModels, openLoraInfo, readInfo } from "./lora_info.js";
import {
  STAGES,
  formatRows,
  makeRow,
  moveLine,
  parseRows,
  searchFiles,
  splitName,
  tidyWeight,
} from "./lora_rows.js";
import { changeGraph } from "./widgets.js";
import { noted, say } from "./words.js";

/** @import {GraphNode, Widget} from "../../../scripts/app.js" */
/** @import {Line, Row} from "./lora_rows.js" */

const ROW_HEIGHT = 30;
const HEAD_HEIGHT = 34;
const TEXT_HEIGHT = 120;
export const MARGIN = 10; // of the node around the element
const MARGINS = 2 * MARGIN + 4; // and a little air
const MOST_SHOWN = 200;
const PATIENCE_MILLISECONDS = 600;
const NO_LORA = "none";
const OWN_MODELS = "FLUX.2";
const PIXELS_A_STEP = 2; // of dragging for 0.01
/** @type {Record<string, string>} */
const STAGE_WORDS = { both: noted("all steps"), high: noted("high"), low: noted("low") };
const STAGE_HELP = noted(
  "all steps; high: only the early steps, where composition forms; low: only the late ones, where detail forms",
);


export class LoraRows {
  /**
   * @param {GraphNode} node
   * @param {Record<"rows" | "lora" | "weight" | "stage", Widget>} plain what the rows stand for
   */
  constructor(node, plain) {
    this.node = node;
    this.plain = plain;
    this.root = make("div", { className: "kleinod-loras", data: { testid: "kleinod-loras" } });
    this.asText = false;
    this.closePanel = () => {};
    /** @type {number | undefined} the heights after the last fitting: needed, and the node's own least */
    this.lastHeight = undefined;
    /** @type {number | undefined} */
    this.fittedTo = undefined;
    this.passToCanvas();
  }

  /** @returns {Line[]} the text's lines, then the LoRA picked in the plain widgets, if any */
  get lines() {
    const lines = parseRows(String(this.plain.rows.value ?? ""));
    const { lora, weight, stage } = this.plain;
    if (lora.value && lora.value !== NO_LORA)
      lines.push(makeRow(lora.value, { weight: tidyWeight(Number(weight.value)), stage: stage.value }));
    return lines;
  }

  /** @returns {string[]} */
  get files() {
    const values = this.plain.lora.options?.values ?? [];
    const files = /** @type {string[]} */ (typeof values === "function" ? values() : values);
    return files.filter((file) => file !== NO_LORA);
  }

  get isLinked() {
    return this.node.inputs?.some((input, slot) => input.name === "rows" && this.node.isInputConnected(slot)) ?? false;
  }

  /** Pixels the node must leave for the element. */
  get height() {
    const rows = Math.max(1, this.lines.length);
    return HEAD_HEIGHT + (this.asText ? TEXT_HEIGHT : rows * ROW_HEIGHT) + MARGINS;
  }

  close() {
    this.closePanel();
  }

  /**
   * Writes the rows into the node, as one step of undoing.
   * @param {Line[]} lines
   */
  commit(lines) {
    changeGraph(() => {
      const { lora, weight, stage, rows } = this.plain;
      if (lora.value !== NO_LORA) {
        // It is among the lines now.
        lora.value = NO_LORA;
        weight.value = 1;
        stage.value = "both";
      }
      rows.value = formatRows(lines);
      this.render(); // the node's new size belongs to the step
    });
  }

  /**
   * @param {number} index
   * @param {Partial<Row>} fields
   */
  change(index, fields) {
    this.commit(this.lines.map((line, i) => (i === index ? Object.assign(line, fields) : line)));
  }

  /** @param {number} index */
  remove(index) {
    this.commit(this.lines.filter((_, i) => i !== index));
  }

  render() {
    const focused = /** @type {HTMLElement | null} */ (this.root.contains(document.activeElement) ? document.activeElement : null);
    const { index, part } = focused?.dataset ?? {};
    const lines = this.lines;
    /** @type {HTMLElement[]} */
    const body = this.asText ? [this.makeText()] : lines.map((line, i) => this.makeLine(line, i));
    if (body.length === 0) body.push(this.makeHint());
    const list = make("div", { className: "kleinod-list", role: "list" }, ...body);
    this.root.replaceChildren(this.makeHead(lines), list);
    this.root.style.minHeight = `${this.height - MARGINS}px`;
    this.root.classList.toggle("kleinod-linked", this.isLinked);
    const again = part && this.root.querySelector(`[data-index="${index}"][data-part="${part}"]`);
    if (again instanceof HTMLElement) again.focus();
    this.fit();
  }

  /** The node grows and shrinks with its rows, unless the user made it larger. */
  fit() {
    const needed = this.height;
    const fitted = this.fittedTo === undefined || Math.abs(this.node.size[1] - this.fittedTo) < 3;
    const least = this.node.computeSize()[1];
    if (this.lastHeight !== undefined && needed !== this.lastHeight && (fitted || this.node.size[1] < least))
      this.node.setSize([this.node.size[0], least]);
    this.lastHeight = needed;
    this.fittedTo = least;
    this.node.setDirtyCanvas?.(true, true);
  }

  /** @param {Line[]} lines */
  makeHead(lines) {
    const rows = lines.filter((line) => line.kind === "row");
    const on = rows.filter((row) => row.enabled).length;
    const all = make("input", {
      type: "checkbox",
      checked: on > 0,
      indeterminate: on > 0 && on < rows.length,
      disabled: rows.length === 0,
      title: say("All rows on or off"),
      "aria-label": say("All rows on or off"),
      data: { index: "head", part: "all" },
      onchange: () => {
        const enabled = on < rows.length;
        this.commit(this.lines.map((line) => (line.kind === "row" ? Object.assign(line, { enabled }) : line)));
      },
    });
    const told = this.isLinked ? say("rows come from the connected input") : say("%1 of %2 on", on, rows.length);
    const text = make("button", {
      type: "button",
      textContent: this.asText ? say("Rows") : say("Text"),
      title: say("Show the rows as text, to copy them or to paste %1", "<lora:name:0.8>"),
      onclick: () => {
        this.asText = !this.asText;
        this.render();
      },
    });
    const add = make("button", {
      type: "button",
      className: "kleinod-add",
      textContent: say("+ Add LoRA"),
      onclick: () => {
        this.openSearch(add, (file) => this.add(file));
      },
    });
    return make("div", { className: "kleinod-head" }, all, make("span", { textContent: told }), text, add);
  }

  makeHint() {
    return make("div", { className: "kleinod-hint", textContent: say("No LoRA yet. Add one: it starts at weight 1.") });
  }

  makeText() {
    const text = make("textarea", {
      value: String(this.plain.rows.value ?? ""),
      spellcheck: false,
      placeholder: "style.safetensors 0.8\nface.safetensors 1 low",
      "aria-label": say("Rows as text"),
      onchange: () => this.commit([...parseRows(text.value), ...this.picked()]),
    });
    return text;
  }

  /** The LoRA of the plain widgets alone. */
  picked() {
    return this.lines.slice(parseRows(String(this.plain.rows.value ?? "")).length);
  }

  /**
   * @param {Line} line
   * @param {number} index
   */
  makeLine(line, index) {
    const remove = make("button", {
      type: "button",
      className: "kleinod-remove",
      textContent: "\u00d7",
      title: say("Remove this row"),
      "aria-label": say("Remove this row"),
      onclick: () => this.remove(index),
    });
    if (line.kind !== "row") {
      const broken = line.kind === "broken";
      const text = make("span", {
        className: broken ? "kleinod-broken" : "kleinod-remark",
        textContent: line.text,
        title: broken ? say("This line cannot be read. Open Text and correct it, or remove it.") : line.text,
      });
      return make("div", { className: "kleinod-row", role: "listitem", data: { index } }, this.makeGrip(index), text, remove);
    }
    const known = this.isKnown(line.file);
    const { folder, name } = splitName(line.file || line.air);
    const pick = make(
      "button",
      {
        type: "button",
        className: "kleinod-name",
        title: known ? line.file : say("%1 is not in models/loras under this name.", line.file || line.air),
        "aria-label": say("LoRA file: %1", line.file || line.air),
        data: { index, part: "name" },
        onclick: () => {
          this.openSearch(pick, (file) => this.repick(index, file), line.file);
        },
      },
      make("span", { className: "kleinod-folder", textContent: folder }),
      name,
    );
    const row = make(
      "div",
      { className: "kleinod-row", role: "listitem", data: { index } },
      this.makeGrip(index),
      this.makeToggle(line, index),
      pick,
      ...(line.air ? [make("span", { className: "kleinod-air", textContent: "AIR", title: line.air })] : []),
      this.makeStage(line, index),
      this.makeWeight(line, index),
      this.makeInfo(line, index),
      remove,
    );
    row.classList.toggle("kleinod-off", !line.enabled || line.weight === 0);
    row.classList.toggle("kleinod-missing", !known && line.file !== "");
    return row;
  }

  /** @param {string} file */
  isKnown(file) {
    const files = this.files;
    return files.includes(file) || files.some((known) => splitName(known).folder + splitName(known).name === file);
  }

  /** @param {Row} row @param {number} index */
  makeToggle(row, index) {
    const box = make("input", {
      type: "checkbox",
      checked: row.enabled,
      title: say("On or off. A row that is off is not read."),
      "aria-label": say("%1 on", row.file),
      data: { index, part: "toggle" },
      onchange: () => this.change(index, { enabled: box.checked }),
    });
    return box;
  }

  /** @param {Row} row @param {number} index */
  makeStage(row, index) {
    const options = STAGES.map((stage) =>
      make("option", { value: stage, textContent: say(STAGE_WORDS[stage]), selected: stage === row.stage }),
    );
    const list = make(
      "select",
      {
        title: say(STAGE_HELP),
        "aria-label": say("Stage of %1", row.file),
        data: { index, part: "stage" },
        onchange: () => this.change(index, { stage: list.value }),
      },
      ...options,
    );
    return list;
  }

  /** @param {Row} row @param {number} index */
  makeInfo(row, index) {
    const button = make("button", {
      type: "button",
      className: "kleinod-info",
      textContent: "i",
      title: say("Trigger words, base model, rank, preview, AIR id"),
      "aria-label": say("About %1", row.file || row.air),
      onclick: () => {
        this.closePanel();
        this.closePanel = openLoraInfo(button, row, (fields) => this.change(index, fields));
      },
    });
    return button;
  }

  /** Drag sideways (with Shift ten times finer), or click and type. @param {Row} row @param {number} index */
  makeWeight(row, index) {
    const field = make("input", {
      type: "text",
      inputMode: "decimal",
      value: row.weight.toFixed(2),
      className: "kleinod-weight",
      title: say("Weight, -4 to 4. Drag sideways, or click and type. Arrow keys: 0.05, with Shift 0.01."),
      "aria-label": say("Weight of %1", row.file || row.air),
      data: { index, part: "weight" },
    });
    const set = (/** @type {number} */ value) => {
      const weight = tidyWeight(value);
      if (Number.isFinite(weight) && weight !== row.weight) this.change(index, { weight });
      else field.value = row.weight.toFixed(2);
    };
    field.addEventListener("change", () => set(field.value.trim() === "" ? 1 : Number(field.value.replace(",", "."))));
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      const step = event.key === "ArrowUp" ? 1 : event.key === "ArrowDown" ? -1 : 0;
      if (step) {
        event.preventDefault();
        set(Number(field.value) + step * (event.shiftKey ? 0.01 : 0.05));
      } else if (event.key === "Enter") field.blur();
      else if (event.key === "Escape") {
        field.value = row.weight.toFixed(2);
        field.blur();
      }
    });
    field.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || document.activeElement === field) return;
      event.preventDefault();
      field.setPointerCapture(event.pointerId);
      let moved = 0;
      let weight = row.weight;
      const drag = (/** @type {PointerEvent} */ move) => {
        moved += move.movementX;
        if (Math.abs(moved) < 3) return;
        weight = tidyWeight(row.weight + (moved / PIXELS_A_STEP) * (move.shiftKey ? 0.001 : 0.01));
        field.value = weight.toFixed(2);
      };
      field.addEventListener("pointermove", drag);
      const end = () => {
        field.removeEventListener("pointermove", drag);
        field.removeEventListener("pointerup", end);
        field.removeEventListener("pointercancel", end);
        if (Math.abs(moved) >= 3) set(weight);
        else field.select();
      };
      field.addEventListener("pointerup", end);
      field.addEventListener("pointercancel", end);
    });
    return field;
  }

  /** @param {number} index */
  makeGrip(index) {
    const grip = make("span", {
      className: "kleinod-grip",
      textContent: "\u2261",
      title: say("Drag to reorder"),
      tabIndex: 0,
      "aria-label": say("Drag, or press the arrow keys, to reorder"),
      data: { index, part: "grip" },
    });
    grip.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
      const to = event.key === "ArrowUp" ? index - 1 : index + 2;
      if (to < 0 || to > this.lines.length) return;
      event.preventDefault();
      event.stopPropagation();
      grip.dataset.index = String(event.key === "ArrowUp" ? index - 1 : index + 1); // focus goes with it
      this.commit(moveLine(this.lines, index, to));
    });
    grip.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      grip.setPointerCapture(event.pointerId);
      const rows = [...this.root.querySelectorAll(".kleinod-row")];
      let to = index;
      const drag = (/** @type {PointerEvent} */ move) => {
        const after = rows.filter((row) => {
          const box = row.getBoundingClientRect();
          return move.clientY > box.top + box.height / 2;
        });
        to = after.length;
        rows.forEach((row, i) => {
          row.classList.toggle("kleinod-dragged", i === index);
          row.classList.toggle("kleinod-before", i === to && to !== index && to !== index + 1);
          row.classList.toggle("kleinod-after", to === rows.length && i === to - 1 && index !== i);
        });
      };
      const end = (/** @type {PointerEvent} */ up) => {
        grip.removeEventListener("pointermove", drag);
        if (up.type === "pointerup" && to !== index && to !== index + 1) this.commit(moveLine(this.lines, index, to));
        else this.render();
      };
      grip.addEventListener("pointermove", drag);
      grip.addEventListener("pointerup", end, { once: true });
      grip.addEventListener("pointercancel", end, { once: true });
    });
    return grip;
  }

  /** @param {string} file */
  add(file) {
    return this.remember(file, (lines) => [...lines, makeRow(file)]);
  }

  /**
   * Another file for the row at `index`, wherever that is by then; nothing where it was removed meanwhile.
   * @param {number} index
   * @param {string} file
   */
  repick(index, file) {
    const name = (/** @type {Line | undefined} */ line) => (line?.kind === "row" ? line.file || line.air : undefined);
    const was = name(this.lines[index]);
    return this.remember(file, (lines) => {
      const at = name(lines[index]) === was ? index : lines.findIndex((line) => name(line) === was);
      return lines.map((line, i) => (i === at ? Object.assign(line, { file, sha256: "" }) : line));
    });
  }

  /**
   * Picks a file and writes its sha256 into its rows, so that the workflow finds it after a rename: together, as one
   * step of undoing, unless the file is so large that reading it would keep the user waiting.
   * @param {string} file
   * @param {(lines: Line[]) => Line[]} pick
   */
  async remember(file, pick) {
    const reading = readInfo(file).catch(() => null);
    const soon = await Promise.race([reading, new Promise((then) => setTimeout(then, PATIENCE_MILLISECONDS))]);
    if (!soon) this.commit(pick(this.lines));
    const sha256 = (await reading)?.sha256;
    const lines = soon ? pick(this.lines) : this.lines;
    const waiting = lines.filter((line) => line.kind === "row" && line.file === file && !line.sha256);
    if (sha256) for (const line of waiting) Object.assign(line, { sha256 });
    if (soon || (sha256 && waiting.length)) this.commit(lines);
  }

  /**
   * @param {HTMLElement} anchor
   * @param {(file: string) => void} onPick
   * @param {string} [current]
   */
  openSearch(anchor, onPick, current) {
    this.closePanel();
    const files = this.files;
    const list = make("div", { className: "kleinod-found", role: "listbox" });
    let found = files;
    /** @type {Record<string, string>} */
    let models = {}; // of a file, by what is in it; comes a little later than the list
    let marked = Math.max(0, files.indexOf(current ?? ""));
    const pick = (/** @type {string} */ file) => {
      this.closePanel();
      onPick(file);
    };
    const mark = (/** @type {number} */ index) => {
      marked = Math.max(0, Math.min(index, Math.min(found.length, MOST_SHOWN) - 1));
      [...list.children].forEach((child, i) => child.setAttribute("aria-selected", String(i === marked)));
      list.children[marked]?.scrollIntoView({ block: "nearest" });
    };
    const show = () => {
      /** @type {HTMLElement[]} */
      const shown = found.slice(0, MOST_SHOWN).map((file) => {
        const { folder, name } = splitName(file);
        const dim = make("span", { className: "kleinod-folder", textContent: folder });
        const model = models[file] ?? "";
        const other = model !== "" && !model.startsWith(OWN_MODELS);
        const title = other ? `${file}\n${say("Made for %1: Klein cannot use it.", model)}` : file;
        const made = make("span", { className: "kleinod-made-for", textContent: model });
        const option = make("div", { role: "option", title, onclick: () => pick(file) }, dim, name, made);
        option.classList.toggle("kleinod-other", other);
        return option;
      });
      if (found.length > MOST_SHOWN) shown.push(make("i", { textContent: say("%1 more: type on", found.length - MOST_SHOWN) }));
      if (files.length === 0) shown.push(make("i", { textContent: say("No file in models/loras. Press R after adding some.") }));
      else if (found.length === 0) shown.push(make("i", { textContent: say("No file has this in its name.") }));
      list.replaceChildren(...shown);
    };
    const search = make("input", {
      type: "search",
      placeholder: say("Search LoRA files"),
      "aria-label": say("Search LoRA files"),
      oninput: () => {
        found = searchFiles(files, search.value);
        show();
        mark(0);
      },
      onkeydown: (event) => {
        if (event.key === "ArrowDown" || event.key === "ArrowUp") {
          event.preventDefault();
          mark(marked + (event.key === "ArrowDown" ? 1 : -1));
        } else if (event.key === "Enter" && found[marked] !== undefined) pick(found[marked]);
      },
    });
    show();
    listModels().then((answer) => {
      models = answer;
      show();
      mark(marked);
    });
    this.closePanel = openPanel(anchor, make("div", { className: "kleinod-search" }, search, list));
    search.focus();
    mark(marked);
  }

  /** In the classic renderer the element covers the canvas: zooming and panning must still reach it. */
  passToCanvas() {
    const isClassic = () => !LiteGraph.vueNodesMode;
    this.root.addEventListener("wheel", (event) => {
      const list = event.target instanceof Element && event.target.closest("textarea");
      if (isClassic() && !(list && list.scrollHeight > list.clientHeight)) {
        event.preventDefault();
        app.canvas.processMouseWheel(event);
      }
    });
    const passes = /** @type {const} */ ([
      ["pointerdown", "processMouseDown"],
      ["pointermove", "processMouseMove"],
      ["pointerup", "processMouseUp"],
    ]);
    for (const [type, method] of passes) {
      this.root.addEventListener(type, (event) => {
        const middle = type === "pointermove" ? event.buttons & 4 : event.button === 1;
        if (isClassic() && middle) app.canvas[method](event);
      });
    }
  }
}
