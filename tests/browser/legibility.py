"""What of an opened workflow can be read in the theme that the page has: by computed colours where it is made
of elements, by the pixels where the canvas draws it."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from tests.browser.layout import contrast_within
from tools.browser import Studio

LEAST = 2.8
"""Contrast of WCAG 2; of ComfyUI's own small labels the faintest has 2.84."""
LEAST_TITLE = 2.0
"""Of thin letters even the darkest pixel is mixed with the ground."""
LEAST_IDLE = 1.6
"""Of a row whose value comes by a wire: ComfyUI draws it half transparent on every node, in every theme.
Where it draws elements they are `disabled`, and not looked at."""

_PALETTE = """
async (palette) => {
  await app.extensionManager.setting.set("Comfy.ColorPalette", palette);
  for (let i = 0; i < 4; i += 1) await new Promise(requestAnimationFrame);
  app.canvas.draw(true, true);
}
"""
# Every text in a node, with the colours that the browser computed; where the canvas draws, titles and rows.
_READ = """
() => {
  const sheet = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const pen = sheet.getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const parse = (text) => {
    if (!known.has(text)) {
      pen.clearRect(0, 0, 1, 1);
      pen.fillStyle = text;
      pen.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = pen.getImageData(0, 0, 1, 1).data;
      known.set(text, [red, green, blue, alpha / 255]);
    }
    return known.get(text);
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const light = (colour) => {
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const [red, green, blue] = colour.map((part) => linear(part / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const page = parse(getComputedStyle(document.body).backgroundColor);
  const groundOf = (element) => {
    const layers = [];
    let opacity = 1;
    for (let one = element; one; one = one.parentElement) {
      const style = getComputedStyle(one);
      opacity *= Number(style.opacity);
      const colour = parse(style.backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] === 1) break;
    }
    return { ground: layers.reverse().reduce((under, top) => over(top, under), page.slice(0, 3)), opacity };
  };
  const texts = [];
  const seen = new Set();
  const hosts = "[data-node-id], .dom-widget, .comfy-markdown, [class^=kleinod]";
  const idle = "option, style, [disabled], [aria-disabled=true]";
  for (const host of document.querySelectorAll(hosts)) {
    const walker = document.createTreeWalker(host, NodeFilter.SHOW_TEXT);
    for (let text = walker.nextNode(); text; text = walker.nextNode()) {
      const element = text.parentElement;
      if (!text.data.trim() || seen.has(element) || element.closest(idle)) continue;
      seen.add(element);
      const box = element.getBoundingClientRect();
      const shown = element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
      if (!box.width || !shown) continue;
      const style = getComputedStyle(element);
      const { ground, opacity } = groundOf(element);
      const colour = parse(style.color);
      const ink = over([...colour.slice(0, 3), colour[3] * opacity], ground);
      const [one, other] = [light(ink), light(ground)];
      const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
      texts.push({ text: text.data.trim().slice(0, 40), contrast });
    }
  }
  const { ds, canvas } = app.canvas;
  const place = canvas.getBoundingClientRect();
  const clip = (name, x, y, width, height) => {
    const [left, top] = ds.convertOffsetToCanvas([x, y]);
    const [x0, y0] = [place.left + left, place.top + top];
    return { name, box: [x0, y0, x0 + width * ds.scale, y0 + height * ds.scale].map(Math.round) };
  };
  const drawn = app.graph.groups.map(({ title, pos, size }) =>
    clip(`group ${title}`, pos[0] + 6, pos[1] + 4, Math.min(300, size[0] - 12), 26));
  const rows = ["combo", "number", "text", "toggle"];
  if (!LiteGraph.vueNodesMode) {
    for (const node of app.graph.nodes) {
      if (node.flags.collapsed) continue;
      const { title, pos, size } = node;
      drawn.push(clip(`title ${title}`, pos[0] + 28, pos[1] - 26, Math.min(200, size[0] - 40), 22));
      for (const widget of node.widgets ?? []) {
        if (widget.element || widget.hidden || !widget.last_y || !rows.includes(widget.type)) continue;
        const row = clip(`${title}: ${widget.name}`, pos[0] + 40, pos[1] + widget.last_y, size[0] - 80, 20);
        drawn.push({ ...row, idle: Boolean(widget.computedDisabled) });
      }
    }
  }
  return { texts, drawn };
}
"""


def set_palette(studio: Studio, palette: str) -> None:
    """By the page's own setting, while it stays open."""
    studio.page.evaluate(_PALETTE, palette)


def find_faint(studio: Studio) -> list[str]:
    """Texts of nodes, titles and rows that stand out too little from what is behind them."""
    seen: dict[str, Any] = studio.page.evaluate(_READ)
    faint = [f"{one['text']!r}: {one['contrast']:.2f}" for one in seen["texts"] if one["contrast"] < LEAST]
    picture = Image.open(io.BytesIO(studio.page.screenshot())).convert("RGB")
    width, height = picture.size
    for one in seen["drawn"]:
        left, top, right, bottom = one["box"]
        if left < 72 or top < 90 or right > width or bottom > height or right - left < 8 or bottom - top < 6:
            continue  # off the page, or under its own bars
        contrast = contrast_within(picture.crop((left, top, right, bottom)))
        if contrast < (LEAST_IDLE if one.get("idle") else LEAST_TITLE):
            faint.append(f"{one['name']}: {contrast:.2f}")
    return faint
