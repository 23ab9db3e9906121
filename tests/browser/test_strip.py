"""The strip of steps under Klein Sampler, in a real Chromium: it shows what the server did, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest
from kleinod.nodes.acceleration.report import STEP_KINDS
from PIL import ImageColor

from tools.browser import RENDERERS, Studio, keep_screenshot

pytestmark = pytest.mark.browser

_DATA = """
() => Object.fromEntries(app.graph.nodes.filter((node) => node.type === "KleinodSampler").map((node) => {
  const strip = node.widgets.find((one) => one.name === "kleinod_strip");
  const rows = [...(strip?.element.children ?? [])];
  return [node.id, rows.map((row) => row.getAttribute("aria-label") ?? row.title)];
}))
"""

_SEED = """
(seed) => app.graph.nodes.filter((node) => node.type === "KleinodSampler")
  .forEach((node) => { node.widgets.find((one) => one.name === "seed").value = seed; })
"""


def test_steps_are_drawn_after_an_accelerated_run_only(
    studio: Studio, renderer: str, artifacts: Path
) -> None:
    studio.complaints.clear()
    studio.open(vue_nodes=RENDERERS[renderer])
    studio.open_template("Klein - Accelerated")
    assert all(rows == [] for rows in studio.page.evaluate(_DATA).values())
    # Of a graph that is cached as a whole, ComfyUI tells the page the results of its output nodes alone.
    seed = 1000 + list(RENDERERS).index(renderer)
    studio.page.evaluate(_SEED, seed)
    studio.press_run()
    studio.page.wait_for_function("() => document.querySelector('.kleinod-strip [role=img]')")
    shown = studio.page.evaluate(_DATA)
    told = [rows for rows in shown.values() if rows]
    assert len(shown) == 2 and len(told) == 1, "one sampler of this workflow computes every step"
    strip, words = told[0]
    assert strip.startswith(f"seed {seed}: ")
    pattern = strip.split(": ")[1]
    assert {"C", "R"} <= set(pattern) <= {"C", "R", "H"}
    assert words.startswith(f"{pattern.count('C')} of {len(pattern)} steps computed")
    cells = studio.page.locator(".kleinod-strip [role=img] span")
    assert cells.count() == len(pattern) and cells.last.bounding_box()["width"] > 1
    # The colours of the chart: one kind of step looks the same wherever it is drawn.
    shown = cells.evaluate_all("spans => spans.map((one) => getComputedStyle(one).backgroundColor)")
    kinds = {kind: ImageColor.getrgb(STEP_KINDS[kind].fill) for kind in pattern}
    assert shown == ["rgb({}, {}, {})".format(*kinds[kind]) for kind in pattern]
    keep_screenshot(studio, artifacts / "screenshots", f"strip-{renderer}")
    assert studio.complaints_about("kleinod") == []
