"""Makes all that is shipped and not written by hand, in order: `python -m tools.shipped [STEP ...]`.

After a change of a node or a workflow: run it, look at every picture and at `git diff`, commit what was
meant. Each step reads what the ones before it wrote. The schema comes first, since it refuses what would
break saved workflows; the locales come last and tell what is left to translate. `python -m
tools.shipped.STEP` makes one step's files, or those of them that are named.

Not among them: `workflows/api` and `locales`, which are written by hand; klein-nano and its LoRAs
(`tools/nano`) and `js/docs/acceleration_pareto.png` (`run.py bench acceleration`), which take hours; and
`keep_workflows`, which belongs to a release.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from tools.launch.chromium import prepare_chromium
from tools.launch.environment import ROOT, Environment, prepare

# Step -> what it makes, in the order of dependence.
STEPS = {
    "schema": "tests/golden/schema.json",
    "templates": "workflows/*.json, from workflows/api and layouts.py",
    "blueprints": "subgraphs/*.json, from workflows/*.json",
    "thumbnails": "workflows/*.jpg, by running workflows/api",
    "pictures": "js/docs/*.png and *.jpg of the help pages, from recipes.py",
    "hero": "js/docs/hero.jpg, by running workflows/api",
    "locales": "a list of the texts that are not translated yet",
}


def make_schema(environment: Environment) -> int:
    command = [str(environment.python), "-m", "pytest", "-q", "tests/contract", "-k", "golden"]
    return _run(command, environment, KLEINOD_WRITE_GOLDEN="1")


def make(step: str, environment: Environment) -> int:
    return _run([str(environment.python), "-m", f"tools.shipped.{step}"], environment)


MAKERS: dict[str, Callable[[Environment], int]] = {"schema": make_schema}


def _run(command: list[str], environment: Environment, **variables: str) -> int:
    more = {"COMFYUI_PATH": str(environment.comfyui), **variables}
    return subprocess.call(command, cwd=ROOT, env={**os.environ, **more})


def main(arguments: list[str]) -> int:
    unknown = [step for step in arguments if step not in STEPS]
    if unknown or "--help" in arguments:
        print(__doc__)
        print("\n".join(f"{step:<12}{result}" for step, result in STEPS.items()))
        return 2 if unknown != ["--help"] else 0
    environment = prepare(tests=True)
    os.environ["KLEINOD_CHROMIUM"] = prepare_chromium(environment.python)
    for step in [step for step in STEPS if not arguments or step in arguments]:
        print(f"== {step}: {STEPS[step]}", flush=True)
        status = MAKERS[step](environment) if step in MAKERS else make(step, environment)
        if status:
            print(f"{step} failed; the steps after it were not made.", file=sys.stderr)
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
