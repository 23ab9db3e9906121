"""What a newcomer sees when something is wrong: the reason on the node itself, and gone once it is mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.browser import RENDERERS, Studio, keep_screenshot
from tools.launch.workflows import ORDER

pytestmark = pytest.mark.browser

_SET_WIDTH = """
(width) => {
  const sampler = window.app.graph.nodes.find((node) => node.type === "KleinodSampler");
  sampler.widgets.find((widget) => widget.name === "width").value = width;
}
"""


def test_the_reason_stands_on_the_node_until_it_is_mended(
    studio: Studio, renderer: str, artifacts: Path
) -> None:
    studio.open(vue_nodes=RENDERERS[renderer])
    studio.open_template(ORDER[0])
    reason = studio.page.get_by_text("width is 130, but must be a multiple of 16").first

    studio.page.evaluate(_SET_WIDTH, 130)
    with pytest.raises(RuntimeError, match="width is 130"):
        studio.press_run()
    reason.wait_for()
    keep_screenshot(studio, artifacts / "screenshots", f"complaint-{renderer}")

    studio.page.evaluate(_SET_WIDTH, 128)
    studio.press_run()
    studio.page.get_by_text("4 pictures, 128x128").first.wait_for()
    assert reason.count() == 0
