"""`python -m tests.emulator [--port N] [--seconds S] [--painter nano]`: serve until standard input closes.

The first line printed is JSON with the address to put into KLEINOD_RUNWARE_URL and KLEINOD_BFL_URL. The
painter nano needs ComfyUI at COMFYUI_PATH; where it cannot be loaded, the pictures are patterns, and the line
says why.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

from . import pictures
from .server import Emulator, Painter

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.emulator")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a job takes")
    parser.add_argument("--painter", choices=("pattern", "nano"), default="pattern")
    options = parser.parse_args()
    painter, note = choose_painter(options.painter)
    with Emulator(options.seconds, port=options.port, painter=painter) as emulator:
        told = {"url": emulator.url, "painter": note, "note": emulator.state()["emulator"]}
        print(json.dumps(told), flush=True)
        sys.stdin.read()


def choose_painter(name: str) -> tuple[Painter, str]:
    """The painter asked for, or patterns with the reason."""
    if name == "pattern":
        return pictures.draw_pattern, "pattern"
    try:
        # ComfyUI greets on standard output, where the first line is ours.
        with contextlib.redirect_stdout(sys.stderr):
            from .nano import NanoPainter

            return NanoPainter(Path(os.environ["COMFYUI_PATH"]), ROOT), "klein-nano"
    except Exception as error:  # noqa: BLE001 - whatever is missing, the emulator still serves
        reason = f"{type(error).__name__}: {error}"
        return pictures.draw_pattern, f"pattern, as klein-nano cannot be loaded: {reason}"


if __name__ == "__main__":
    main()
