"""The API that answers and the servers of one's own, set up in the settings of a real Chromium."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.browser import Studio, keep_screenshot, open_studio
from tools.launch.server import Server

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def studio(own_server: Server) -> Iterator[Studio]:
    """The settings, opened once."""
    with open_studio(own_server.client) as studio:
        studio.open_settings("Name of the key")
        yield studio


def ask(server: Server, path: str, key: str = "", body: object = None) -> tuple[int, dict]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(f"{server.url}/kleinod/api{path}", data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_learning_is_off_until_switched_on_and_what_was_learned_is_erased(
    studio: Studio, own_server: Server
) -> None:
    page = studio.page
    switch = page.get_by_role("checkbox", name="Learn from uncached runs")
    panel = switch.locator("xpath=../..")
    panel.get_by_text("Nothing was learned so far.").wait_for()
    assert not switch.is_checked()
    # By the keyboard: a notice of the page's own may lie above the panel.
    folder = next(Path(own_server.base).rglob("__kleinod"))
    with page.expect_response("**/kleinod/learning"):
        switch.press("Space")
    assert json.loads((folder / "learning.json").read_text("utf-8"))["enabled"] is True
    sigmas = [1 - i / 8 for i in range(9)]
    lessons = {"version": 1, "model": "0123456789abcdef", "guidance": 4.0, "sigmas": sigmas, "rough": False}
    lessons["mu"] = None
    file = folder / "calibrations" / "learned" / "0123456789abcdef-0.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({**lessons, "seen": 2, "grams": {}, "tried": []}), "utf-8")
    with page.expect_response("**/kleinod/learning"):
        switch.press("Space")
    panel.get_by_text("2 different prompts (8 steps, guidance 4, model 012345)").wait_for()
    panel.get_by_role("button", name="Erase what was learned").press("Enter")
    panel.get_by_text("Nothing was learned so far.").wait_for()
    assert not file.exists()


def test_switched_on_a_key_made_and_revoked(studio: Studio, own_server: Server, artifacts: Path) -> None:
    page = studio.page
    panel = page.get_by_label("Name of the key").locator("xpath=../..")
    panel.get_by_text("Off: nothing is answered.").wait_for()
    assert ask(own_server, "/health")[0] == 404
    panel.get_by_label("Answer requests that show a key").click()
    panel.get_by_text("/kleinod/api/runware/v1").wait_for()
    assert ask(own_server, "/health")[0] == 200
    first = re.search(r"kleinod-[\w-]{43}", panel.get_by_text("Copy this key now").inner_text())[0]
    assert ask(own_server, "/bfl/v1/credits", first)[0] == 200

    page.get_by_label("Name of the key").fill("colleague")
    page.get_by_label("pictures at once").fill("3")
    page.get_by_label("jobs a day (0 = any)").fill("2")
    panel.get_by_role("button", name="New key").click()
    panel.get_by_text("colleague (3 pictures at once, 2 jobs a day)").wait_for()
    shown = panel.get_by_text("Copy this key now")
    assert first not in shown.inner_text()
    shown.scroll_into_view_if_needed()
    keep_screenshot(studio, artifacts / "screenshots", "api-settings")
    key = re.search(r"kleinod-[\w-]{43}", shown.inner_text())[0]
    assert ask(own_server, "/bfl/v1/credits", key) == (200, {"credits": 2.0})
    stored = [
        file
        for file in Path(own_server.base).rglob("*")
        if file.is_file() and key.encode() in file.read_bytes()
    ]
    assert stored == [], "a key is kept as its hash"

    row = panel.get_by_text("colleague (3").locator("xpath=..")
    row.get_by_role("button", name="Revoke").click()
    row.wait_for(state="detached")
    assert ask(own_server, "/bfl/v1/credits", key)[0] == 403
    assert studio.complaints_about("kleinod") == []


def test_what_the_owner_decides_is_stored_and_acts(
    studio: Studio, own_server: Server, artifacts: Path
) -> None:
    page = studio.page
    panel = page.get_by_label("Name of the key").locator("xpath=../..")
    panel.get_by_text("Who may ask, prices, files").click()
    page.get_by_label("Private hosts that requests may name").fill("nas.local, 10.0.0.7:8080")
    page.get_by_label("Files by model name, one a line").fill(
        "runware:400@5 = klein-nano (built in)\nflux-2-pro = klein-nano (built in)"
    )
    page.get_by_label("USD per picture").fill("0.002")
    save = panel.locator("details").get_by_role("button", name="Save")
    save.click()
    panel.get_by_text("Saved.", exact=True).wait_for()
    keep_screenshot(studio, artifacts / "screenshots", "api-settings-owner")
    settings = json.loads(
        (Path(own_server.base) / "user" / "__kleinod" / "service" / "api.json").read_text("utf-8")
    )
    assert settings["reachable"] == ["nas.local", "10.0.0.7:8080"] and settings["picture_usd"] == 0.002
    assert settings["models"]["flux-2-pro"] == "klein-nano (built in)" and settings["enabled"]
    page.get_by_label("Private hosts that requests may name").fill("not/a/host")
    save.click()
    panel.get_by_text("must be a list of names such as nas.local").wait_for()


def test_a_server_of_ones_own_is_added_tested_and_cleared(
    studio: Studio, own_server: Server, comfy_server: Server, artifacts: Path
) -> None:
    page = studio.page
    name, address, key = (page.get_by_label(f"Own server: {word}") for word in ("name", "address", "API key"))
    panel = name.locator("xpath=../..")
    panel.scroll_into_view_if_needed()
    assert key.get_attribute("type") == "password" and key.get_attribute("autocomplete") == "off"
    name.fill("workstation")
    address.fill("http://192.168.1.20:8188")
    key.fill("kleinod-a-key-that-is-wrong")
    panel.get_by_role("button", name="Save").click()
    panel.get_by_text("would be asked without encryption").wait_for()
    assert address.input_value() == "http://192.168.1.20:8188", "what was refused can be mended"
    panel.get_by_label("Allow it without encryption").check()
    panel.get_by_role("button", name="Save").click()
    panel.get_by_text("workstation: http://192.168.1.20:8188/kleinod/api (...rong)").wait_for()
    assert key.input_value() == ""
    name.fill("workstation")
    address.fill(own_server.url)
    key.fill("kleinod-a-key-that-is-wrong")
    panel.get_by_role("button", name="Save").click()
    panel.get_by_text("is this very ComfyUI").wait_for()
    address.fill(comfy_server.url)
    panel.get_by_role("button", name="Save").click()
    row = panel.get_by_text(f"workstation: {comfy_server.url}").locator("xpath=..")
    row.get_by_role("button", name="Test").click()
    panel.get_by_text("At this address nothing answers API requests.").wait_for()
    keep_screenshot(studio, artifacts / "screenshots", "own-servers")
    row.get_by_role("button", name="Clear").click()
    row.wait_for(state="detached")
