"""Keeps the shipped workflows and blueprints as this version saved them.

    python -m tools.shipped.keep_workflows

They go to `tests/golden/workflows-VERSION/`, where tests load them for ever after. Run it with each release
that changes one of them.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"


def read_version() -> str:
    found = re.search(
        r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    return found[1]


def keep(folder: Path) -> int:
    """Copy every file without its white space; how many there were."""
    files = [*(ROOT / "workflows").glob("*.json"), *(ROOT / "workflows" / "api").glob("*.json")]
    places = [folder / file.relative_to(ROOT / "workflows") for file in files]
    blueprints = list((ROOT / "subgraphs").glob("*.json"))
    places += [folder / "subgraphs" / file.name for file in blueprints]
    for file, place in zip((*files, *blueprints), places, strict=True):
        place.parent.mkdir(parents=True, exist_ok=True)
        saved = json.loads(file.read_text(encoding="utf-8"))
        text = json.dumps(saved, ensure_ascii=False, separators=(",", ":"))
        place.write_text(text + "\n", encoding="utf-8")
    return len(places)


def main() -> int:
    folder = GOLDEN / f"workflows-{read_version()}"
    print(f"{keep(folder)} files in {folder.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
