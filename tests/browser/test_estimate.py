"""The line of cost and time on the remote nodes, in a real Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.test_blueprints import SWITCH, drop
from tools.browser import RENDERERS, Studio, keep_screenshot
from tools.launch.client import load_prompt
from tools.launch.workflows import API_FOLDER

pytestmark = pytest.mark.browser


def test_cost_and_time_are_told_before_run(studio: Studio, renderer: str, artifacts: Path) -> None:
    studio.complaints.clear()
    studio.open(vue_nodes=RENDERERS[renderer])
    studio.open_template("Klein - Runware")
    line = studio.page.locator("[role=status]").filter(has_text="about $")
    line.first.wait_for()
    price = float(line.first.inner_text().split("$")[1].split(",")[0])
    assert price > 0
    studio.page.evaluate(
        """() => {
          const node = app.graph.nodes.find((one) => one.type === "KleinodRunware");
          const steps = node.widgets.find((widget) => widget.name === "steps");
          steps.value = 50;
          steps.callback(50);
        }"""
    )
    studio.page.wait_for_function(
        """(price) => [...document.querySelectorAll("[role=status]")].map((line) => line.textContent)
            .some((text) => text.includes("about $") && parseFloat(text.split("$")[1]) > 1.5 * price)""",
        arg=price,
    )
    keep_screenshot(studio, artifacts / "screenshots", f"estimate-{renderer}")
    sent = studio.build_prompt()
    (node,) = [entry for entry in sent.values() if entry["class_type"] == "KleinodRunware"]
    template = load_prompt(API_FOLDER / "Klein - Runware.json").values()
    (shipped,) = [entry for entry in template if entry["class_type"] == "KleinodRunware"]
    assert set(node["inputs"]) == set(shipped["inputs"]), "the line must not be sent"
    assert studio.complaints_about("kleinod") == []


_READ_BADGE = """
(title) => window.app.graph.nodes.find((node) => node.title === title).badges
    .map((badge) => (typeof badge === "function" ? badge() : badge).text)
    .find((text) => text?.includes("about $"))
"""


def test_the_price_stands_on_the_outside_of_a_blueprint(
    studio: Studio, renderer: str, artifacts: Path
) -> None:
    studio.complaints.clear()
    studio.open(vue_nodes=RENDERERS[renderer])
    drop(studio, SWITCH, 320, 60)
    studio.page.wait_for_function(_READ_BADGE, arg=SWITCH)
    before = studio.page.evaluate(_READ_BADGE, SWITCH)
    assert before.startswith("Runware: about $")
    studio.page.evaluate(
        """(title) => {
          const node = window.app.graph.nodes.find((one) => one.title === title);
          const steps = node.widgets.find((widget) => widget.name === "steps");
          steps.value = 50;
          steps.callback?.(50);
          window.app.api.dispatchCustomEvent("graphChanged", null);
        }""",
        SWITCH,
    )
    studio.page.wait_for_function(f"(title) => ({_READ_BADGE})(title) !== {before!r}", arg=SWITCH)
    after = studio.page.evaluate(_READ_BADGE, SWITCH)
    assert float(after.split("$")[1]) > float(before.split("$")[1])
    keep_screenshot(studio, artifacts / "screenshots", f"estimate-outside-{renderer}")
    assert studio.complaints_about("kleinod") == []
