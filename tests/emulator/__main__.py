"""`python -m tests.emulator [--port N] [--seconds S]`: serve until the parent closes standard input.

The first line printed is JSON with the address to put into KLEINOD_RUNWARE_URL and KLEINOD_BFL_URL.
"""

from __future__ import annotations

import argparse
import json
import sys

from .server import Emulator


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.emulator")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a job takes")
    options = parser.parse_args()
    with Emulator(options.seconds, port=options.port) as emulator:
        print(json.dumps({"url": emulator.url, "note": emulator.state()["emulator"]}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
