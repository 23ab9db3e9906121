"""Prompts that earlier versions shipped still run; tests/contract/test_saved_workflows.py says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.test_prompt_fuzz import make_small
from tools.launch.client import load_prompt
from tools.launch.server import Server
from tools.launch.workflows import API_FOLDER

pytestmark = pytest.mark.server

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
# What is still shipped as it was runs in test_comfyui.py.
OUTDATED = [
    file
    for file in sorted(GOLDEN.glob("workflows-*/api/*.json"))
    if not (API_FOLDER / file.name).is_file() or load_prompt(file) != load_prompt(API_FOLDER / file.name)
]


@pytest.mark.parametrize("file", OUTDATED, ids=lambda file: f"{file.parts[-3]} {file.stem}")
def test_it_runs(comfy_server: Server, file: Path) -> None:
    prompt = make_small(load_prompt(file))
    result = comfy_server.client.run(prompt)
    for number, node in prompt.items():
        if node["class_type"] == "SaveImage":
            assert result.outputs[number]["images"]
