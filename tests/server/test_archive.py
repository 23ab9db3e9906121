"""What the registry would publish, installed by folder copy under a name of the user's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tools.archive import list_published
from tools.launch.client import load_prompt
from tools.launch.environment import Environment
from tools.launch.server import Server
from tools.launch.workflows import API_FOLDER, ORDER

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "Kleinod pack 1.0"


@pytest.fixture(scope="module")
def published() -> list[str]:
    return list_published(ROOT)


def test_the_archive_holds_the_pack_and_nothing_else(published: list[str]) -> None:
    tops = {name.split("/")[0] for name in published}
    assert {"__init__.py", "pyproject.toml", "README.md", "LICENSE", "nodes", "workflows"} <= tops
    assert not {"tests", "tools", "run.py", ".ci", ".github", "output", ".runtime"} & tops
    assert sum((ROOT / name).stat().st_size for name in published) < 30 * 2**20
    assert not [name for name in published if name.endswith((".pt", ".pth", ".ckpt", ".key", ".env", ".pem"))]


@pytest.mark.server
def test_the_archive_works_under_another_folder_name(
    published: list[str], tmp_path: Path, comfy_environment: Environment, artifacts: Path
) -> None:
    pack = tmp_path / "pack"
    for name in published:
        (pack / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, pack / name)
    log = artifacts / "archive-server.log"
    with Server(comfy_environment, pack=pack, pack_name=FOLDER, log=log, device="cpu") as server:
        server.start()
        known = server.client.get_json("/object_info")
        assert known["KleinodLoader"]["python_module"] == f"custom_nodes.{FOLDER}"
        assert set(server.client.get_json("/workflow_templates")[FOLDER]) == set(ORDER)
        assert server.client.run(load_prompt(API_FOLDER / f"{ORDER[0]}.json")).images()
