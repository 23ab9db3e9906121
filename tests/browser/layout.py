"""What a user sees of an opened workflow: where things stand, what covers what, and what can be read."""

from __future__ import annotations

import io
from itertools import combinations
from typing import Any

from PIL import Image

from tools.browser import Studio

# Boxes as left, top, right, bottom in canvas units, titles included.
_MEASURE = """
() => {
  const { ds, canvas } = app.canvas;
  const place = canvas.getBoundingClientRect();
  const nodes = app.graph.nodes.map((node) => {
    const element = LiteGraph.vueNodesMode && document.querySelector(`[data-node-id="${node.id}"]`);
    if (!element) {
      const [x, y, width, height] = node.boundingRect;
      const least = node.flags.collapsed ? height : node.computeSize()[1] + 30;
      const box = [x, y, x + width, y + Math.max(height, least)];
      return { title: node.title, note: node.type === "MarkdownNote", box };
    }
    const seen = element.getBoundingClientRect();
    const x = (seen.left - place.left) / ds.scale - ds.offset[0];
    const y = (seen.top - place.top) / ds.scale - ds.offset[1];
    const box = [x, y, x + seen.width / ds.scale, y + seen.height / ds.scale];
    return { title: node.title, note: node.type === "MarkdownNote", box };
  });
  const groups = app.graph.groups.map(({ title, pos, size }) =>
    ({ title, box: [pos[0], pos[1], pos[0] + size[0], pos[1] + size[1]] }));
  return {
    nodes, groups, scale: ds.scale, offset: [...ds.offset], drawn: !app.canvas.low_quality,
    page: [canvas.clientWidth, canvas.clientHeight],
  };
}
"""
_LAID_OUT = f"""
() => {{
  const there = [...document.querySelectorAll("[data-node-id] img")].every((one) => one.complete)
    && app.graph.nodes.every((node) => (node.imgs ?? []).every((one) => one.complete));
  return there ? JSON.stringify(({_MEASURE.strip()})()) : null;
}}
"""
TITLE = 30  # of a group, in canvas units
SLACK = 2.0


def measure(studio: Studio) -> dict[str, Any]:
    return studio.page.evaluate(_MEASURE)


def wait_until_still(studio: Studio) -> None:
    """The page has laid out what it shows, pictures included, and been drawn."""
    studio.wait_until_still(_LAID_OUT)


def _covers(one: list[float], other: list[float]) -> bool:
    return all(min(one[i + 2], other[i + 2]) - max(one[i], other[i]) > SLACK for i in (0, 1))


def _holds(outer: list[float], inner: list[float]) -> bool:
    return all(outer[i] - SLACK <= inner[i] and inner[i + 2] <= outer[i + 2] + SLACK for i in (0, 1))


def find_disorder(seen: dict[str, Any]) -> list[str]:
    """Nodes over each other, nodes that hang out of their group or over its title, groups over each other."""
    faults = [
        f"{one['title']} and {other['title']} cover each other"
        for one, other in [*combinations(seen["nodes"], 2), *combinations(seen["groups"], 2)]
        if _covers(one["box"], other["box"])
    ]
    for node in seen["nodes"]:
        near = [group for group in seen["groups"] if _covers(group["box"], node["box"])]
        if node["note"]:
            faults += [f"the note lies in {group['title']}" for group in near]
            continue
        if len(near) != 1:
            faults.append(f"{node['title']} lies in {[group['title'] for group in near]}")
            continue
        left, top, right, bottom = near[0]["box"]
        if not _holds([left, top + TITLE, right, bottom], node["box"]):
            faults.append(f"{node['title']} {node['box']} hangs out of {near[0]['title']} {near[0]['box']}")
    return faults


def find_unseen(seen: dict[str, Any], whole: bool) -> list[str]:
    """What of the graph lies off the page, or is too small to be drawn; `whole` False: the note and the first
    group are enough.
    """
    faults = [] if seen["drawn"] else [f"no text is drawn at {seen['scale']:.0%}"]
    wanted = seen["nodes"] + seen["groups"]
    if not whole:
        wanted = [node for node in seen["nodes"] if node["note"]] + seen["groups"][:1]
    for one in wanted:
        box = [(one["box"][i] + seen["offset"][i % 2]) * seen["scale"] for i in range(4)]
        if not _holds([0, 0, *seen["page"]], box):
            faults.append(f"{one['title']} at {[round(edge) for edge in box]} is off the page")
    return faults


def contrast_of(studio: Studio, clip: dict[str, float]) -> float:
    """Contrast, as WCAG 2 defines it, of the commonest colour of a piece of the page and the one that differs
    most from it.
    """
    return contrast_within(Image.open(io.BytesIO(studio.page.screenshot(clip=clip))).convert("RGB"))


def contrast_within(picture: Image.Image) -> float:
    """The same of a picture, RGB."""
    counted = picture.getcolors(picture.width * picture.height) or []
    ground = _luminance(max(counted)[1])
    return max(
        (max(light, ground) + 0.05) / (min(light, ground) + 0.05)
        for light in (_luminance(colour) for _, colour in counted)
    )


def _luminance(colour: tuple[int, int, int]) -> float:
    parts = [part / 255 for part in colour]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
