"""LoRAs that come with the pack: klein-nano's, in `built_in/`, selectable like files of models/loras.

Each has its picture beside it (`NAME.preview.png`). How they were made and what they reach:
`built_in/README.md`.
"""

from __future__ import annotations

from pathlib import Path

BUILT_IN = Path(__file__).with_name("built_in")


def list_bundled() -> dict[str, str]:
    """Name -> path, in the order of names. A file of the same name in models/loras goes before it."""
    return {path.name: str(path) for path in sorted(BUILT_IN.glob("*.safetensors"))}
