"""`python -m tools.bench NAME [--json FILE] [the bench's own arguments]`, with ComfyUI at `COMFYUI_PATH`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import signal
import sys
from pathlib import Path

import tools.bench
from tools.bench.report import format_table, write_json

_NOT_BENCHES = {"__main__", "report"}


def list_benches() -> list[str]:
    """Every module of this folder that has a `run`; a name with a leading underscore is a part of one."""
    names = (module.name for module in pkgutil.iter_modules(tools.bench.__path__))
    return sorted(name for name in names if name not in _NOT_BENCHES and not name.startswith("_"))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="run.py bench", allow_abbrev=False)
    parser.add_argument("name", help="one of: " + ", ".join(list_benches()))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
    options, rest = parser.parse_known_args(arguments)
    if options.name not in list_benches():
        parser.error(f"there is no benchmark {options.name!r}; there are: {', '.join(list_benches())}")
    # A polite kill ends a bench as Ctrl-C does, so that it stops the processes it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rows = importlib.import_module(f"tools.bench.{options.name}").run(rest)
    print(format_table(rows))
    if options.json is not None:
        write_json(options.name, rows, options.json)
        print(f"\nWritten to {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
