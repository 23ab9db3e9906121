"""How tests reach the pack, its tools and a running ComfyUI.

`kleinod`       the whole pack, loaded the way ComfyUI loads it (needs ComfyUI: `COMFYUI_PATH`), as soon as a
                test file outside tests/core is collected. Those of tests/core are pure and answer in seconds.
`kleinod_pure`  an alias of `nodes/` that skips every `__init__` that touches ComfyUI, for the pure modules.
Use one of them in a test, never both: each alias has its own copy of every class.
`tools`         the makers and launchers of `tools/`.
`cluster`       the part of `cluster/` that imports no Ray.
`tests`         this folder: `from tests.model.tiny_klein import load_tiny_model`.
`comfy_server`  a fixture: one real ComfyUI with the pack in it for the whole session (`tools.launch.server`).
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".runtime" / "comfyui")
ARTIFACTS = ROOT / "tests" / ".artifacts"


def _alias(name: str, folder: Path) -> None:
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


# Examples are drawn anew on a desk, where a rare one is news; on CI every run is the same run. None has a
# deadline: on a busy machine any of them may take long.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

_alias("kleinod_pure", ROOT / "nodes")
_alias("tools", ROOT / "tools")
_alias("cluster", ROOT / "cluster")
_alias("tests", ROOT / "tests")

from tools.launch.emulator import run_emulator  # noqa: E402
from tools.launch.environment import Environment, inherit_environment  # noqa: E402
from tools.launch.pack import enable_comfyui, load_pack  # noqa: E402
from tools.launch.server import Server  # noqa: E402

PURE = ROOT / "tests" / "core"


@functools.cache
def _load_comfyui() -> None:
    """ComfyUI and the pack, once; a test that needs them says itself what it misses where there is none."""
    if (COMFYUI / "comfy").is_dir():
        # KLEINOD_GPU=1 lets the tests marked gpu see the card; everything else is tested on the CPU.
        enable_comfyui(COMFYUI, () if os.environ.get("KLEINOD_GPU") else ("--cpu",))
        load_pack(ROOT)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(module_path: Path) -> None:
    if not module_path.is_relative_to(PURE):
        _load_comfyui()


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots and logs are kept; git ignores it."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS


@pytest.fixture(scope="session")
def comfy_environment() -> Environment:
    """The Python that runs the tests, the ComfyUI they use, and the packages it wants instead of others."""
    return inherit_environment(COMFYUI)


@pytest.fixture(scope="session")
def comfy_server(comfy_environment: Environment, artifacts: Path) -> Iterator[Server]:
    """One real ComfyUI on the CPU for all server and browser tests of a worker; talk to it by `.client`.

    Its remote nodes know the emulator only, which draws patterns here.
    """
    log = artifacts / f"server-{os.environ.get('PYTEST_XDIST_WORKER', 'only')}.log"
    with (
        run_emulator(comfy_environment, "pattern") as variables,
        Server(comfy_environment, log=log, device="cpu", variables=variables) as server,
    ):
        server.start()
        yield server


def pytest_configure() -> None:
    """A polite kill ends the tests as Ctrl-C does, so that fixtures stop the servers they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Where several workers run: the browser's tests in one of them, as two browsers would overwrite each
    other's settings, the server's in one, and every other file whole, for the sake of its fixtures.
    """
    from xdist.scheduler import LoadScopeScheduling

    class OneBrowser(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder = "/".join(nodeid.split("/")[:2])
            return folder if folder in ("tests/browser", "tests/server") else nodeid.split("::")[0]

    return OneBrowser(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    later = [item for item in items for mark in item.iter_markers("python") if sys.version_info < mark.args]
    if later:  # a client of others' that this Python never had: nothing is left out that could be installed
        config.hook.pytest_deselected(items=later)
        items[:] = [item for item in items if item not in later]
    asking = [item for item in items if item.get_closest_marker("gpu")]
    if asking and not _has_card():
        skip = pytest.mark.skip(reason="needs a CUDA device and KLEINOD_GPU=1")
        for item in asking:
            item.add_marker(skip)


def _has_card() -> bool:
    import torch

    return torch.cuda.is_available() and bool(os.environ.get("KLEINOD_GPU"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """On CI a skipped test is a failed one, unless it needs a GPU: a skip hides a missing install step."""
    report = yield
    if report.skipped and os.environ.get("CI") and not item.get_closest_marker("gpu"):
        report.outcome = "failed"
        report.longrepr = f"skipped on CI, where everything must run: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same for a whole module that skips itself while it is collected."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped on CI, where everything must run: {report.longrepr}"
    return report
