"""Every language says everything the schema says, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from kleinod.nodes import NODES

from tools import locales

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"Kleinod_Keys_Runware", "Kleinod_Keys_BFL", "Kleinod_Spending_Limits", "Kleinod_Loras_Rows"}


def test_the_languages_are_those_promised() -> None:
    assert {folder.name for folder in (ROOT / "locales").iterdir()} == set(locales.LANGUAGES)


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_nodes_are_translated_whole(language: str) -> None:
    source, translated = locales.list_texts(NODES), locales.read(language, "nodeDefs")
    assert locales.find_gaps(source, translated) == []
    for node, texts in translated.items():
        assert texts["description"] != source[node]["description"], f"{node} is not translated"


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_settings_are_translated_whole(language: str) -> None:
    settings = locales.read(language, "settings")
    assert set(settings) == SETTINGS
    script = "".join(file.read_text("utf-8") for file in (ROOT / "js").glob("*.js"))
    assert all(name.replace("_", ".") in script for name in SETTINGS)
    for entry in settings.values():
        assert entry["name"].strip() and not locales.SPECIAL & set("".join(entry.values()))


def test_gaps_are_found() -> None:
    source = {"Node": {"inputs": {"a": {"name": "a"}, "b": {"name": "b"}}}}
    given = {"Node": {"inputs": {"a": {"name": " "}, "b": {"name": "x | y"}, "c": {"name": "c"}}}}
    assert [gap.split(":")[0] for gap in locales.find_gaps(source, given)] == [
        "Node.inputs.c", "Node.inputs.a.name", "Node.inputs.b.name",
    ]  # fmt: skip
    assert locales.find_gaps(source, {}) == ["Node: missing"]
