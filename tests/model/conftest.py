"""Model folders that hold what a test puts there and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

FOLDERS = ("diffusion_models", "text_encoders", "vae", "vae_approx", "loras")


def _point(monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    import folder_paths

    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
        _, extensions = folder_paths.folder_names_and_paths[name]
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(root / name)], extensions))
    return root


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the three tiny files, written once."""
    from tests.model.tiny_klein import write_tiny_files

    root = tmp_path_factory.mktemp("models")
    write_tiny_files(root)
    return root


@pytest.fixture
def tiny_models(monkeypatch: pytest.MonkeyPatch, tiny_root: Path) -> Path:
    """ComfyUI's model folders with the three tiny files in them; read them only."""
    return _point(monkeypatch, tiny_root)


@pytest.fixture
def model_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """ComfyUI's model folders, empty, for a test to fill."""
    return _point(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """What Klein Sampler takes: the tiny model, both prompts and a VAE; a test must not change them."""
    from tests.model.tiny_klein import load_tiny_model, random_conditioning, tiny_vae

    return {
        "model": load_tiny_model(),
        "positive": random_conditioning(1),
        "negative": random_conditioning(2),
        "vae": tiny_vae(),
    }
