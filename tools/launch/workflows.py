"""The shipped workflows that `python3 run.py` runs, in order, and how it shows them running."""

from __future__ import annotations

import time
from pathlib import Path

from . import LaunchError
from .client import ComfyClient, StepProgress, load_prompt
from .console import Progress, format_bar, format_seconds
from .environment import ROOT

API_FOLDER = ROOT / "workflows" / "api"

# File names under workflows/api/, in the order a new user meets them; the others are not run.
ORDER = (
    "Klein - Text to Image",
    "Klein - Image to Image",
    "Klein - Edit with References",
    "Klein - Reference Control",
    "Klein - Inpaint",
    "Klein - Outpaint",
    "Klein - Edit and Keep",
    "Klein - LoRA Stack",
    "Klein - Face Refine",
    "Klein - Accelerated",
    "Klein - Compare Acceleration",
    "Klein - Everything",
    "Klein - Runware",
    "Klein - BFL",
    "Klein - Local or Remote",
    "Klein - Your Other Machine",
)


def run_all(client: ComfyClient, output: Path) -> int:
    """Run every listed workflow, print each picture's path with its time, and return how many failed."""
    failures = 0
    for name in ORDER:
        try:
            run_one(client, name, output)
        except (LaunchError, OSError) as error:
            failures += 1
            print(f"{name}: FAILED: {error}", flush=True)
    return failures


def run_one(client: ComfyClient, name: str, output: Path) -> None:
    prompt = load_prompt(API_FOLDER / f"{name}.json")
    titles = {
        node_id: node.get("_meta", {}).get("title", node["class_type"]) for node_id, node in prompt.items()
    }
    with Progress(name) as step:
        step.update("queued")

        def show(progress: StepProgress) -> None:
            step.update(
                f"{titles.get(progress.node_id, 'node')} {format_bar(progress.value, progress.total)}"
            )

        started = time.monotonic()
        result = client.run(prompt, show)
        images = [image for image in result.images() if image["type"] == "output"]
        if not images:
            raise LaunchError("it ended without a picture.")
        for image in images:
            path = output / image["subfolder"] / image["filename"]
            if not path.is_file():
                raise LaunchError(f"ComfyUI reported {path}, but no such file exists.")
        step.finish(f"done in {format_seconds(time.monotonic() - started)}")
        for image in images:
            print(f"  {display_path(output / image['subfolder'] / image['filename'])}", flush=True)


def display_path(path: Path) -> str:
    """Relative to the repository where that is shorter."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
