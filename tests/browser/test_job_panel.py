"""The job panel in a real Chromium: a paid job with picture and cost, and the way back into a graph."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.browser import RENDERERS, Studio, keep_screenshot

pytestmark = pytest.mark.browser

JOB = {
    "1": {
        "class_type": "KleinodRunware",
        "inputs": {
            "positive_prompt": "a fox for the panel", "negative_prompt": "", "width": 256, "height": 192,
            "steps": 28, "cfg_scale": 3.5, "seed": 3, "number_results": 2,
        },
    },
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "panel"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def studio(studio: Studio) -> Studio:
    """One job was paid for before the page is opened."""
    studio.client.run(JOB)
    return studio


def test_a_job_is_shown_opened_and_recovered(studio: Studio, renderer: str, artifacts: Path) -> None:
    studio.complaints.clear()
    studio.open(vue_nodes=RENDERERS[renderer])
    studio.page.get_by_role("button", name="Klein Jobs").click()
    card = studio.page.locator(".kleinod-job").filter(has_text="256x192").first
    card.get_by_text("finished").wait_for()
    assert card.locator("img").count() == 2
    card.get_by_text("a fox for the panel").wait_for()
    assert card.locator(".kleinod-seeds").inner_text().startswith("Seeds 3, ")
    # This job's alone: pictures of earlier ones, further down, load when they are scrolled to.
    studio.page.wait_for_function(
        "(card) => [...card.querySelectorAll('img')].every((image) => image.naturalWidth > 0)",
        arg=card.element_handle(),
    )
    keep_screenshot(studio, artifacts / "screenshots", f"job-panel-{renderer}")
    address = card.locator("a").first.get_attribute("href")
    assert studio.page.evaluate(
        "async (address) => (await fetch(address)).headers.get('content-type')", address
    ) == ("image/png")

    card.get_by_role("button", name="To graph").click()
    (node,) = studio.build_prompt().values()
    assert node["class_type"] == "KleinodRecoverJob"
    job_id = address.split("/jobs/")[1].split("/")[0]
    assert node["inputs"]["job"].endswith(job_id)
    card.get_by_role("button", name="To graph").click()
    places = studio.page.evaluate("() => app.graph.nodes.map((node) => [...node.pos, ...node.size])")
    (left, top, width, height), (x, y, _, _) = places
    assert not (abs(x - left) < width and abs(y - top) < height), "one lies on the other"
    studio.page.get_by_role("button", name="Klein Jobs").click()
    card.wait_for(state="detached")
    assert studio.page.locator(".kleinod-job").count() == 0
    graph = {"1": node, "2": JOB["2"]}
    assert len(studio.client.run(graph).images()) == 2
    assert studio.complaints_about("kleinod") == []


def test_recover_fetches_at_once_without_a_graph(studio: Studio, renderer: str) -> None:
    studio.open(vue_nodes=RENDERERS[renderer])
    studio.page.get_by_role("button", name="Klein Jobs").click()
    card = studio.page.locator(".kleinod-job").filter(has_text="256x192").first
    address = card.locator("a").first.get_attribute("href")
    job_id = address.split("/jobs/")[1].split("/")[0]
    card.get_by_role("button", name="Recover").click()
    studio.page.get_by_text("In the output folder, under Klein Jobs").first.wait_for()
    name = f"runware_{job_id[:8]}_01.png"
    shown = studio.client.get(f"/view?filename={name}&subfolder=Klein%20Jobs&type=output")
    assert shown.startswith(b"\x89PNG")
    assert studio.page.evaluate("() => app.graph.nodes.length") == 0


def test_the_job_chosen_stays_chosen(studio: Studio, renderer: str) -> None:
    """ComfyUI puts the first job of the list into the widget once the list has come, whatever was chosen."""
    newer = {**JOB, "1": {**JOB["1"], "inputs": {**JOB["1"]["inputs"], "width": 320, "seed": 4}}}
    studio.client.run(newer)
    studio.open(vue_nodes=RENDERERS[renderer])
    studio.page.get_by_role("button", name="Klein Jobs").click()
    older = studio.page.locator(".kleinod-job").filter(has_text="256x192").first
    older.get_by_role("button", name="To graph").click()
    studio.page.get_by_role("button", name="Klein Jobs").click()
    for _ in range(2):
        studio.page.wait_for_timeout(1500)
        (node,) = studio.build_prompt().values()
        assert "256x192" in node["inputs"]["job"]
        saved = studio.page.evaluate("() => window.app.graph.serialize()")
        studio.open(vue_nodes=RENDERERS[renderer])
        studio.page.evaluate("(saved) => window.app.loadGraphData(saved)", saved)
