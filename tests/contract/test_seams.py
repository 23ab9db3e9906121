"""The seam list names all that `nodes/` takes from ComfyUI, and the ComfyUI under test has all of it."""

from __future__ import annotations

import ast
import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import kleinod.nodes as pack
import pytest
from aiohttp import web
from kleinod.nodes.base import seams

ROOT = Path(__file__).resolve().parents[2]
NODES = ROOT / "nodes"
# ComfyUI's own modules, without the published interface.
OF_COMFYUI = {
    "comfy", "comfy_execution", "comfy_extras", "execution", "folder_paths", "latent_preview", "node_helpers",
    "nodes", "server",
}  # fmt: skip
# Methods that the pack calls on objects ComfyUI hands it, by the class they belong to.
OBJECTS = ("comfy.model_patcher:ModelPatcher", "comfy.samplers:CFGGuider")
# Names of theirs that any object may have: only listing them by hand is possible.
COMMON = {
    "clone",
    "sample",
    "load",
    "detach",
    "inner_sample",
    "outer_sample",
    "lowvram_patch_counter",
    "is_clone",
}


def names_used(file: Path) -> dict[str, int]:
    """Dotted name of ComfyUI -> line, over every import and every attribute of what was imported."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    known: dict[str, str] = {}
    found: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in OF_COMFYUI:
                    known[alias.asname or alias.name.split(".")[0]] = (
                        alias.name if alias.asname else alias.name.split(".")[0]
                    )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            if (node.module or "").split(".")[0] in OF_COMFYUI:
                for alias in node.names:
                    known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                    found.setdefault(f"{node.module}.{alias.name}", node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "seams.find":
            found.setdefault(node.args[0].value.replace(":", "."), node.lineno)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            # comfy = seams.modules("comfy.samplers", ...); folder_paths = seams.find("folder_paths")
            name, call = ast.unparse(node.targets[0]), node.value
            if ast.unparse(call.func) == "seams.modules":
                known[name] = call.args[0].value.split(".")[0]
            elif ast.unparse(call.func) == "seams.find" and ":" not in call.args[0].value:
                known[name] = call.args[0].value

    def spell(node: ast.AST) -> str | None:
        if isinstance(node, ast.Name):
            return known.get(node.id)
        if isinstance(node, ast.Attribute):
            inner = spell(node.value)
            return f"{inner}.{node.attr}" if inner else None
        return None

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = spell(node)
            if name:
                found.setdefault(name, node.lineno)
    return found


def _listed() -> set[str]:
    """Every listed name, and the modules and classes it lies in."""
    listed = set()
    for seam in seams.SEAMS:
        parts = seam.place.replace(":", ".").split(".")
        listed |= {".".join(parts[: i + 1]) for i in range(len(parts))}
    return listed


def test_all_that_is_used_is_listed() -> None:
    listed = _listed()
    missing = {
        f"{name} ({file.relative_to(NODES).as_posix()}:{line})"
        for file in NODES.rglob("*.py")
        if file.name != "seams.py"
        for name, line in names_used(file).items()
        # What hangs on a listed name (an enum's text, a class's own attribute) goes with it.
        if not any(name == one or (name.startswith(f"{one}.") and ":" not in one) for one in listed - MODULES)
        and name not in listed
    }
    assert missing == set()


def test_all_of_comfyui_is_found_not_imported() -> None:
    """An import of a module that is gone would end the whole pack's start."""
    imported = {
        f"{file.relative_to(NODES).as_posix()}:{node.lineno}"
        for file in NODES.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
        if name.split(".")[0] in OF_COMFYUI
    }
    assert imported == set()


MODULES = {
    ".".join(seam.place.partition(":")[0].split(".")[: i + 1])
    for seam in seams.SEAMS
    for i in range(seam.place.partition(":")[0].count(".") + 1)
}


def test_methods_called_on_comfyuis_objects_are_listed() -> None:
    listed = {seam.place.rpartition(".")[2] for seam in seams.SEAMS}
    for place in OBJECTS:
        methods = {name for name in vars(seams.find(place)) if not name.startswith("_")} - COMMON - listed
        called = {
            f"{node.func.attr} ({file.relative_to(NODES).as_posix()}:{node.lineno})"
            for file in NODES.rglob("*.py")
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in methods
        }
        assert called == set(), f"of {place}"


def test_what_is_read_off_the_server_is_listed() -> None:
    """Its methods by name, what it has only once it is made among the words of the code that makes it."""
    listed = {seam.place.rpartition(".")[2] for seam in seams.SEAMS}
    listed |= {word for seam in seams.SEAMS if seam.place.startswith("server:") for word in seam.speaks}
    read = {
        f"{node.attr} ({file.relative_to(NODES).as_posix()}:{node.lineno})"
        for file in NODES.rglob("*.py")
        for tree in [ast.parse(file.read_text(encoding="utf-8"))]
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr not in listed
        # server.prompt_queue.get_...: whatever hangs on it belongs to ComfyUI as well
        and ast.unparse(node).partition(".")[0] in _servers(tree)
        and "server.app." not in ast.unparse(node)  # aiohttp's own
    }
    assert read == set()


def _servers(tree: ast.AST) -> set[str]:
    return {
        ast.unparse(node.targets[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.value) == "seams.find_server()"
    }


@pytest.fixture
def page_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """In the place of ComfyUI's server; afterwards nothing is known of what was missing."""
    import server

    handlers: list = []
    instance = SimpleNamespace(
        routes=web.RouteTableDef(),
        app=web.Application(),
        handlers=handlers,
        add_on_prompt_handler=handlers.append,
    )
    monkeypatch.setattr(server.PromptServer, "instance", instance, raising=False)
    seams.missing.cache_clear()
    yield instance
    monkeypatch.undo()
    seams.missing.cache_clear()


@pytest.mark.parametrize("gone", ["", "add_on_prompt_handler", "__init__"])
def test_the_start_leaves_out_what_the_server_lacks(
    page_server: SimpleNamespace, gone: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import server

    if gone == "__init__":  # a later one that keeps its routes elsewhere
        monkeypatch.setattr(server.PromptServer, gone, lambda self, loop: None)
        del page_server.routes
    elif gone:
        monkeypatch.delattr(server.PromptServer, gone)
        del page_server.add_on_prompt_handler
    with caplog.at_level(logging.WARNING, "kleinod.pack"):
        asyncio.run(pack.KleinodExtension().on_load())
    titles = {
        "": [],
        "add_on_prompt_handler": [seams.KNOWN_SEEDS.title],
        "__init__": [seams.ROUTES.title, seams.PREVIEWS.title],
    }[gone]
    said = [line for line in caplog.messages if " is off: " in line]
    assert sorted(line.split(" is off: ")[0] for line in said) == sorted(titles)
    assert bool(page_server.handlers) == (gone != "add_on_prompt_handler")
    if gone != "__init__":
        assert len(page_server.routes) > 20


def test_nothing_is_listed_that_nobody_uses() -> None:
    text = "\n".join(
        file.read_text(encoding="utf-8") for file in NODES.rglob("*.py") if file.name != "seams.py"
    )
    idle = [
        seam.place
        for seam in seams.SEAMS
        if not seam.speaks and seam.place.rpartition(":")[2].rpartition(".")[2] not in text
    ]
    assert idle == []


@pytest.mark.parametrize("seam", seams.SEAMS, ids=lambda seam: f"{seam.place}-{seam.features[0].title}")
def test_the_comfyui_under_test_has_it(seam: seams.Seam) -> None:
    assert seams._fault(seam) == ""


def test_on_this_comfyui_nothing_is_off() -> None:
    assert seams.report() == []


def test_objects_carry_what_is_read_off_them() -> None:
    """Attributes that only an instance has."""
    import comfy.samplers

    from tests.model.tiny_klein import load_tiny_model

    model = load_tiny_model()
    for name in ("model", "model_options", "load_device", "offload_device", "cached_patcher_init"):
        assert hasattr(model, name), name
    assert hasattr(model.model, "diffusion_model") and model.model.model_config.unet_config
    network = model.model.diffusion_model
    assert network.params.global_modulation and network.params.context_in_dim and network.patch_size == 1
    guider = comfy.samplers.CFGGuider(model)
    assert guider.model_patcher is model and guider.model_options is model.model_options
    assert comfy.samplers.ksampler("euler").sampler_function is not None
