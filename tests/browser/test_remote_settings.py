"""The settings panel in a real Chromium: a key goes in, a hint comes out, and nothing else keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.browser import Studio, keep_screenshot, open_studio
from tools.launch.server import Server

pytestmark = pytest.mark.browser

KEY = "typed-5c11d7e0b2-do-not-leak"


@pytest.fixture(scope="module")
def studio(own_server: Server) -> Iterator[Studio]:
    """The panel, opened once."""
    with open_studio(own_server.client) as studio:
        studio.open_settings("Runware: API key")
        yield studio


def test_a_key_is_saved_hinted_and_cleared(studio: Studio, own_server: Server, artifacts: Path) -> None:
    panel = studio.page.get_by_label("Black Forest Labs: API key")
    assert panel.get_attribute("type") == "password" and panel.get_attribute("autocomplete") == "off"
    row = panel.locator("xpath=../..")
    panel.fill(KEY)
    row.get_by_role("button", name="Save").click()
    row.get_by_text("Key ...leak, stored on this computer.").wait_for()
    keep_screenshot(studio, artifacts / "screenshots", "remote-settings")
    assert panel.input_value() == ""

    user = Path(own_server.base) / "user"
    holders = [
        file for file in user.rglob("*") if file.is_file() and KEY in file.read_text("utf-8", "replace")
    ]
    assert [file.relative_to(user).as_posix() for file in holders] == ["__kleinod/keys.json"]
    assert KEY not in str(own_server.client.get_json("/settings"))
    assert KEY not in studio.page.evaluate("() => JSON.stringify({...localStorage, ...sessionStorage})")

    row.get_by_role("button", name="Clear").click()
    row.get_by_text("No key stored for this account.").wait_for()
    assert KEY not in (user / "__kleinod" / "keys.json").read_text("utf-8")
    assert studio.complaints_about("kleinod") == []


def test_a_bad_key_is_refused_with_a_sentence(studio: Studio) -> None:
    panel = studio.page.get_by_label("Runware: API key")
    row = panel.locator("xpath=../..")
    row.get_by_text("No key stored for this account.").wait_for()
    before = row.bounding_box()
    panel.fill("short")
    panel.press("Enter")
    row.get_by_text("An API key is 8 to 256 visible characters").wait_for()
    assert panel.input_value() == "short", "a refused key can be mended"
    after = row.bounding_box()
    assert (after["width"], after["height"]) == (before["width"], before["height"]), (
        "the sentence moves nothing"
    )
    assert row.get_by_role("link", name="Get a key").get_attribute("href") == "https://my.runware.ai"
    assert row.get_by_text("Account", exact=True).is_visible()


def test_limits_are_kept(studio: Studio, own_server: Server) -> None:
    field = studio.page.get_by_label("USD per day").first
    field.fill("2.5")
    row = field.locator("xpath=../..")
    row.get_by_role("button", name="Save").click()
    studio.page.get_by_text("spent today, of $2.50.").wait_for()
    assert own_server.client.get_json("/kleinod/limits")["day_usd"] == 2.5
    field.fill("0")
    row.get_by_role("button", name="Save").click()
    studio.page.get_by_text("spent today.").wait_for()
