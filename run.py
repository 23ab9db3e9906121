"""Kleinod's one door: `run.py`, `run.py serve`, `run.py test`, `run.py bench NAME`. See `run.py --help`."""

# This file must parse on any Python, however old: the reader gets a sentence instead of a SyntaxError.
# ruff: noqa: UP031, RUF005
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
OLDEST, NEWEST = (3, 10), (3, 13)


def find_suitable_python():
    """Return the path of an installed Python 3.10-3.13, the newest first, or None."""
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        check = "import sys; print(sys.executable if sys.version_info[:2] == (3, %d) else '')" % minor
        try:
            found = subprocess.check_output(["python3.%d" % minor, "-c", check], stderr=subprocess.STDOUT)
        except (OSError, subprocess.CalledProcessError):
            continue
        if found.strip():
            return found.decode("utf-8", "replace").strip()
    return None


def main():
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        sys.path.insert(0, ROOT)
        from tools.launch.command_line import main as launch

        return launch(sys.argv[1:])
    mine = "This is Python %d.%d; Kleinod needs 3.10 to 3.13" % sys.version_info[:2]
    other = find_suitable_python()
    if other is None:
        sys.stderr.write(mine + ". Install one of those and start run.py with it: python3.12 run.py\n")
        return 2
    sys.stderr.write(mine + " and continues with " + other + ".\n")
    sys.stderr.flush()
    try:
        return subprocess.call([other, os.path.abspath(__file__)] + sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
