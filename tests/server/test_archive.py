"""What the registry would publish, copied into the custom_nodes of a ComfyUI that never saw it before.

Under the folder names users end up with: that of an unpacked git archive, and one of their own with a space,
from which ComfyUI serves the page nothing (aiohttp issue 13433): there the nodes work and the log says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from tools.archive import find_faults, list_published
from tools.browser import keep_screenshot, open_studio
from tools.launch.client import load_prompt
from tools.launch.environment import Environment
from tools.launch.server import Server
from tools.launch.workflows import API_FOLDER, ORDER
from tools.shipped.blueprints import BLUEPRINTS

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("ComfyUI-Kleinod-main", "comfyui_kleinod 1")
# Of a ComfyUI folder, what is its user's and not ComfyUI's.
_NOT_COMFYUI = ("models", "custom_nodes", "input", "output", "user", "temp", "venv", "python_embeded", ".*")

_ADD_ROWS = """
() => {
  const node = window.LiteGraph.createNode("KleinodLoraStack");
  window.app.graph.add(node);
  node.widgets.find((widget) => widget.name === "rows").value = "klein-nano style.safetensors 0.8";
}
"""
_STYLED = """
() => [...document.styleSheets].some(
  (sheet) => sheet.href?.includes("kleinod.loras.css") && sheet.cssRules.length > 0
)
"""


@pytest.fixture(scope="module")
def published() -> list[str]:
    return list_published(ROOT)


@pytest.fixture(scope="module")
def clean_comfyui(comfy_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI as it is unpacked: no model, no other pack, no picture, no setting."""
    folder = tmp_path_factory.mktemp("clean") / "ComfyUI"

    def leave_out(place: str, names: list[str]) -> set[str]:
        at_the_top = Path(place) == comfy_environment.comfyui
        return shutil.ignore_patterns(*_NOT_COMFYUI)(place, names) if at_the_top else set()

    shutil.copytree(comfy_environment.comfyui, folder, ignore=leave_out)
    return folder


@pytest.fixture(scope="module", params=FOLDERS)
def installed(
    request: pytest.FixtureRequest,
    published: list[str],
    clean_comfyui: Path,
    comfy_environment: Environment,
    artifacts: Path,
) -> Iterator[Server]:
    """A running ComfyUI with the archive in `custom_nodes/<name>`, which is on the server as `folder`."""
    folder = clean_comfyui / "custom_nodes" / request.param
    for name in published:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    environment = replace(comfy_environment, comfyui=clean_comfyui, own=True)
    log = artifacts / f"archive-{FOLDERS.index(request.param)}.log"
    try:
        with Server(environment, base=clean_comfyui, pack=None, log=log, device="cpu") as server:
            server.folder = folder
            server.start()
            yield server
    finally:  # also where it did not start: the next one would find two packs
        shutil.rmtree(folder)


def test_the_archive_holds_the_pack_and_nothing_else(published: list[str]) -> None:
    assert find_faults({name: (ROOT / name).stat().st_size for name in published}) == []


@pytest.mark.server
def test_every_node_is_there_and_nothing_complains(installed: Server) -> None:
    from kleinod.nodes import NODES

    module = f"custom_nodes.{installed.folder.name}"
    known = installed.client.get_json("/object_info")
    own = {name for name, node in known.items() if node["python_module"] == module}
    assert own == {node.__name__ for node in NODES}
    start, ready, _ = installed.read_log().partition("To see the GUI go to")
    assert ready
    # Every warning or traceback would name the pack or its path; the line of its import time does, too.
    # The repository may be a folder called kleinod itself, and ComfyUI names files below it.
    start = start.replace(str(ROOT), "")
    *warnings, said = [line for line in start.splitlines() if "kleinod" in line.lower()]
    assert said.endswith(str(installed.folder)) and "seconds: " in said
    assert len(warnings) == (" " in installed.folder.name)
    assert all("Rename it to kleinod" in line for line in warnings)
    assert "Traceback" not in start


@pytest.mark.server
def test_templates_and_blueprints_are_listed(installed: Server) -> None:
    client, folder = installed.client, installed.folder.name
    assert set(client.get_json("/workflow_templates")[folder]) == set(ORDER)
    listed = client.get_json("/global_subgraphs").values()
    own = [entry["name"] for entry in listed if entry["info"]["node_pack"] == f"custom_nodes.{folder}"]
    assert sorted(own) == sorted(BLUEPRINTS)
    assert client.get_json("/i18n")["de"]["nodeDefs"]["KleinodLoader"]


@pytest.mark.server
@pytest.mark.parametrize("installed", FOLDERS[:1], indirect=True)
def test_scripts_help_and_pictures_are_served(installed: Server, published: list[str]) -> None:
    client, folder = installed.client, installed.folder.name
    scripts = [name for name in published if name.startswith("js/")]
    wanted = {f"/extensions/{folder}/{name.removeprefix('js/')}" for name in scripts if name.endswith(".js")}
    offered = {unquote(name) for name in client.get_json("/extensions")}
    assert {name for name in offered if folder in name} == wanted
    for name in scripts:
        served = client.get(quote(f"/extensions/{folder}/{name.removeprefix('js/')}"))
        assert served == (ROOT / name).read_bytes(), name
    for name in ORDER:
        picture = client.get(quote(f"/api/workflow_templates/{folder}/{name}.jpg"))
        assert picture == (ROOT / "workflows" / f"{name}.jpg").read_bytes()


@pytest.mark.server
def test_a_workflow_makes_a_picture_and_leaves_nothing_in_the_folder(
    installed: Server, published: list[str]
) -> None:
    (picture,) = installed.client.run(load_prompt(API_FOLDER / f"{ORDER[0]}.json")).images()[:1]
    assert len(installed.client.fetch_image(picture)) > 1000
    there = [file.relative_to(installed.folder) for file in installed.folder.rglob("*") if file.is_file()]
    assert {file.as_posix() for file in there if "__pycache__" not in file.parts} == set(published)


@pytest.mark.server
@pytest.mark.browser
@pytest.mark.parametrize("installed", FOLDERS[:1], indirect=True)
def test_the_page_loads_its_scripts_from_there(installed: Server, artifacts: Path) -> None:
    with open_studio(installed.client) as studio:
        studio.open()
        studio.page.evaluate(_ADD_ROWS)
        studio.page.locator("[data-testid=kleinod-loras]:visible").get_by_text("klein-nano style").wait_for()
        studio.page.wait_for_function(_STYLED)
        keep_screenshot(studio, artifacts / "screenshots", f"archive-{FOLDERS.index(installed.folder.name)}")
        assert studio.complaints_about("kleinod", "extensions/") == []
