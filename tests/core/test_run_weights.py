"""`run.py serve` makes the model folders and tells which file goes where, and which are there."""

from __future__ import annotations

import json
from pathlib import Path

from tools.launch.weights import BASE, ENCODER, FOLDERS, SET, VAE, WEIGHTS, describe_weights, make_folders

ROOT = Path(__file__).resolve().parents[2]


def test_every_folder_is_made_and_none_emptied(tmp_path: Path) -> None:
    mine = tmp_path / "vae" / "mine.safetensors"
    mine.parent.mkdir()
    mine.touch()
    for _ in range(2):
        make_folders(tmp_path)
    assert all((tmp_path / name).is_dir() for name in FOLDERS) and mine.is_file()
    assert {weights.folder for weights in WEIGHTS} <= set(FOLDERS)


def test_a_file_is_found_in_any_place_and_sub_folder(tmp_path: Path) -> None:
    own, readers = tmp_path / "own", tmp_path / "reader's"
    make_folders(own)
    (own / "vae" / VAE.name).write_bytes(b"x")
    (readers / "text_encoders" / "qwen").mkdir(parents=True)
    (readers / "text_encoders" / "qwen" / ENCODER.name).write_bytes(b"x")
    told = describe_weights([own, readers])
    assert told.startswith(f"Models go into {own}:")
    assert f"missing, {BASE.gigabytes:g} GB: {BASE.url}" in told
    assert VAE.url not in told and ENCODER.url not in told and told.count("there, ") == 2


def test_workflows_and_readme_name_the_same_files() -> None:
    graph = json.loads((ROOT / "workflows" / "Klein - Text to Image.json").read_text(encoding="utf-8"))
    (loader,) = (node for node in graph["nodes"] if node["type"] == "KleinodLoader")
    offered = {(model["directory"], model["name"], model["url"]) for model in loader["properties"]["models"]}
    assert offered == {(weights.folder, weights.name, weights.url) for weights in SET}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for weights in WEIGHTS:
        (line,) = (line for line in readme.splitlines() if f"[{weights.name}]" in line)
        assert f"({weights.url})" in line and f"`{weights.folder}`" in line
