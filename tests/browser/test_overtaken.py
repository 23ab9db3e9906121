"""Answers of the server that come late: after the next one, or after what a user would type meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from playwright.sync_api import APIResponse, Page, Route

from tests.browser.test_job_panel import JOB
from tests.browser.test_lora_rows import _ADD, _TEXT, STYLE, SUBJECT, VIEW
from tests.browser.test_own_files import _BUILD, _SET, TINY, values, wait_for
from tests.browser.test_own_files import files as files  # a fixture
from tools.browser import Studio

pytestmark = pytest.mark.browser

STEPS = """
(steps) => {
  const node = app.graph.nodes.find((one) => one.type === "KleinodRunware");
  const widget = node.widgets.find((one) => one.name === "steps");
  widget.value = steps;
  widget.callback(steps);
}
"""


class Held:
    """The first request to a path is answered as it is now, but the page hears of it only when let go."""

    def __init__(self, page: Page, path: str) -> None:
        self.page = page
        self._path = path
        self._first: Route | None = None
        self._answer: APIResponse | None = None
        page.route(path, self._take)

    def wait(self, act: Callable[[], object]) -> None:
        """Until the page has asked, which `act` makes it do, and the server has answered."""
        act()
        ends = time.monotonic() + 60
        while self._answer is None:
            assert time.monotonic() < ends, "the page asks nothing"
            self.page.wait_for_timeout(20)

    def let_go(self) -> None:
        route, answer = self._first, self._answer
        assert route is not None and answer is not None
        with self.page.expect_response(lambda one: one.request == route.request):
            route.fulfill(response=answer)
        self.page.unroute(self._path)
        self.page.wait_for_timeout(300)  # what must not happen would happen now

    def _take(self, route: Route) -> None:
        if self._first is None:
            self._first = route
            self._answer = route.fetch()
        else:
            route.continue_()


def test_the_line_of_cost_is_that_of_the_last_change(studio: Studio) -> None:
    studio.open()
    studio.open_template("Klein - Runware")
    page = studio.page
    line = page.locator(".kleinod-estimate")
    line.filter(has_text="about $").wait_for()
    before = line.inner_text()
    held = Held(page, "**/kleinod/estimate/**")
    held.wait(lambda: page.evaluate(STEPS, 50))
    page.evaluate(STEPS, 10)
    page.wait_for_function(
        "(before) => document.querySelector('.kleinod-estimate').textContent !== before", arg=before
    )
    after = line.inner_text()
    held.let_go()
    assert line.inner_text() == after


def test_a_new_sampler_follows_the_model_chosen_last(studio: Studio, files: object) -> None:
    studio.open()
    page = studio.page
    page.evaluate(_BUILD)
    wait_for(studio, [128, 128, 28, 4])
    for kind in ("KleinodCompare", "KleinodCalibrate"):
        wait_for(studio, [128, 128], kind, ("width", "height"))
    held = Held(page, f"**/kleinod/model/settings?*{TINY}*")
    held.wait(lambda: page.evaluate(_SET, ["KleinodLoader", "diffusion_model", TINY]))
    with page.expect_response("**/kleinod/model/settings?*nano*"):
        page.evaluate(_SET, ["KleinodLoader", "diffusion_model", "klein-nano (built in)"])
    held.let_go()
    assert values(studio, "KleinodSampler", "width", "height") == [128, 128]


def test_another_file_for_a_row_finds_it_where_it_is_by_then(studio: Studio) -> None:
    studio.open()
    page = studio.page
    page.evaluate(_ADD, f"{STYLE} 0.8\n{SUBJECT} 0.5\nother.safetensors 0.3")
    rows = page.locator(VIEW)
    held = Held(page, "**/kleinod/loras/info?*")
    rows.get_by_label(f"LoRA file: {SUBJECT}").click()
    held.wait(lambda: page.get_by_role("option", name="klein-nano style").click())
    rows.get_by_label("Remove this row").first.click()
    page.wait_for_timeout(700)  # longer than a pick waits for its sha256
    held.let_go()
    page.wait_for_function(f"() => ({_TEXT})().includes('sha256=')")
    text = page.evaluate(_TEXT)
    assert [line.split(" sha256=")[0] for line in text.splitlines()] == [
        f"{STYLE} 0.5",
        "other.safetensors 0.3",
    ]


def test_the_panel_shows_the_newest_list_of_jobs(studio: Studio) -> None:
    studio.open()
    page = studio.page
    held = Held(page, "**/kleinod/jobs")
    held.wait(lambda: page.get_by_role("button", name="Klein Jobs").click())
    newer = {**JOB, "1": {**JOB["1"], "inputs": {**JOB["1"]["inputs"], "width": 448, "height": 320}}}
    studio.client.run(newer)
    page.evaluate("() => document.dispatchEvent(new CustomEvent('kleinod-jobs-changed'))")
    card = page.locator(".kleinod-job").filter(has_text="448x320").first
    card.wait_for()
    held.let_go()
    assert card.is_visible()


def test_settings_are_shown_once_their_values_have_come(studio: Studio) -> None:
    """What is typed before would be lost, and saving would write what nobody has seen."""
    page = studio.page
    fields = {
        "limits": page.get_by_label("USD per day"),
        "hosts": page.get_by_label("Runware: picture hosts"),
        "api-settings": page.get_by_label("Name of the key"),
    }
    held = {route: Held(page, f"**/kleinod/{route}") for route in fields}
    studio.open_settings("Runware: API key")
    for route, field in fields.items():
        held[route].wait(lambda: None)
        assert not field.is_visible()
        held[route].let_go()
        field.wait_for()
    stored = studio.client.get_json("/kleinod/limits")["day_usd"]
    assert float(fields["limits"].input_value()) == stored
