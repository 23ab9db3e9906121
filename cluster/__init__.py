"""The API that answers, on Ray Serve: one front with the jobs, one worker a GPU with a ComfyUI of its own.

    routing.py       which worker a picture goes to
    executor.py      `submit, watch, cancel` over all workers
    asgi.py          the service behind an ASGI server
    numbers.py       the workers' numbers for Prometheus
    options.py       what the application is told
    roster.py        what the workers say of themselves
    workers_book.py  who drew what
those import no Ray; these are what Serve runs:
    router.py  worker.py  front.py  application.py
and `python -m cluster` is what `run.py cluster` starts in Ray's own environment.

Nothing of `nodes/` imports from here. What is imported from there is the service's pure core, which starts
without ComfyUI.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# `nodes/` without its __init__, which is for ComfyUI; the name that the tests use, too.
if "kleinod_pure" not in sys.modules:
    _pack = types.ModuleType("kleinod_pure")
    _pack.__path__ = [str(ROOT / "nodes")]
    sys.modules["kleinod_pure"] = _pack
