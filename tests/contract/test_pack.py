"""What ComfyUI, its registry and an artist may expect of every node and of the pack as a whole."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import sys
from pathlib import Path

import pytest
from comfy_api.v0_0_2 import io
from kleinod.nodes import NODES, comfy_entrypoint

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it where Python does not

ROOT = Path(__file__).resolve().parents[2]
CATEGORIES = ("Kleinod", "Kleinod/acceleration", "Kleinod/edits", "Kleinod/faces", "Kleinod/remote")

each_node = pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)


def all_inputs(node: type[io.ComfyNode]) -> list[io.Input]:
    """Every input of a schema with the ones nested in growing and dynamic inputs."""
    return [nested for top in node.define_schema().inputs for nested in [top, *top.get_all()]]


def test_the_extension_lists_the_table_of_contents() -> None:
    extension = asyncio.run(comfy_entrypoint())
    assert asyncio.run(extension.get_node_list()) == NODES


@each_node
def test_schema_is_valid_and_named_after_the_class(node: type[io.ComfyNode]) -> None:
    schema = node.GET_SCHEMA()
    schema.validate()
    assert schema.node_id == node.__name__
    assert node.__name__.startswith("Kleinod") and node.__name__.isalnum()
    assert schema.display_name.startswith("Klein ")
    assert schema.category in CATEGORIES
    assert not schema.is_api_node, "is_api_node hands Comfy.org account tokens to the node"


@each_node
def test_nothing_is_left_unexplained(node: type[io.ComfyNode]) -> None:
    schema = node.GET_SCHEMA()
    assert len(schema.description) > 20
    assert schema.search_aliases
    assert [entry.id for entry in all_inputs(node) if not entry.tooltip] == []
    assert [out.id for out in schema.outputs if not (out.display_name and out.tooltip)] == []


@each_node
def test_tooltips_are_whole_sentences(node: type[io.ComfyNode]) -> None:
    """They end with a full stop, and begin with a capital, a choice of the combo, or the API's own name."""
    for field in [*all_inputs(node), *node.GET_SCHEMA().outputs]:
        text = field.tooltip
        assert text == " ".join(text.split()) and text.endswith("."), f"{field.id}: {text}"
        first = re.match(r"[^\s,:;]+", text)[0]
        choices = [word for option in getattr(field, "options", None) or [] for word in str(option).split()]
        api = any(letter.isupper() for letter in first) or "." in first or first == "refresh"
        assert api or first in choices, f"{field.id}: {text}"


# What somebody who comes from another pack would type -> a node that must be found.
WORDS = {
    "teacache": "KleinodAcceleration",
    "fbcache": "KleinodApplyAcceleration",
    "wavespeed": "KleinodAcceleration",
    "easycache": "KleinodApplyAcceleration",
    "magcache": "KleinodAcceleration",
    "adetailer": "KleinodFaceRefiner",
    "facedetailer": "KleinodFaceRefiner",
    "ultralytics": "KleinodFaceSettings",
    "inpaint": "KleinodInpaint",
    "mask": "KleinodInpaint",
    "crop and stitch": "KleinodInpaint",
    "outpaint": "KleinodOutpaint",
    "uncrop": "KleinodOutpaint",
    "identity": "KleinodKeep",
    "colour shift": "KleinodKeep",
    "color match": "KleinodKeep",
    "edit composite": "KleinodKeep",
    "lora loader": "KleinodLoraStack",
    "power lora": "KleinodLoraStack",
    "flux2": "KleinodLoader",
    "gguf": "KleinodLoader",
    "unet loader": "KleinodLoader",
    "ksampler": "KleinodSampler",
    "img2img": "KleinodSampler",
    "kontext": "KleinodReferences",
    "edit": "KleinodReferences",
    "reference latent": "KleinodReferences",
    "clip text encode": "KleinodPrompt",
    "xy plot": "KleinodCompare",
    "runware": "KleinodRunware",
    "black forest labs": "KleinodBFL",
    "webhook": "KleinodRunwareOptions",
    "resume": "KleinodRecoverJob",
    "sigmas": "KleinodFast",
    "coefficients": "KleinodCalibrate",
    "cache hits": "KleinodAccelerationReport",
}


@pytest.mark.parametrize(("words", "expected"), WORDS.items(), ids=str)
def test_search_finds_nodes_by_the_names_others_use(words: str, expected: str) -> None:
    aliases = {node.__name__: node.GET_SCHEMA().search_aliases for node in NODES}
    assert any(words in alias for alias in aliases[expected])


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("inpaint", {"KleinodInpaint", "KleinodKeep", "KleinodFaceRefiner"}),
        ("outpaint", {"KleinodOutpaint"}), ("uncrop", {"KleinodOutpaint"}),
        ("fill", {"KleinodInpaint", "KleinodOutpaint"}),
        ("mask", {"KleinodInpaint", "KleinodKeep", "KleinodFaceRefiner"}),
        ("upscale", {"KleinodSampler", "KleinodFaceRefiner"}), ("refine", {"KleinodSampler"}),
        ("edit", {"KleinodSampler", "KleinodReferences"}),
    ],
)  # fmt: skip
def test_words_for_what_a_user_wants_to_do_find_nodes(word: str, expected: set[str]) -> None:
    found = {node.__name__ for node in NODES if any(word in a for a in node.GET_SCHEMA().search_aliases)}
    assert expected <= found


@each_node
def test_search_aliases_are_plain_and_told_apart(node: type[io.ComfyNode]) -> None:
    names = node.GET_SCHEMA().search_aliases
    assert len(names) >= 5 and len(set(names)) == len(names)
    assert all(name == name.lower().strip() for name in names)
    assert {name for _, name in WORDS.items()} == {node.__name__ for node in NODES}


@each_node
def test_execute_takes_exactly_the_inputs(node: type[io.ComfyNode]) -> None:
    """By name, or as the fields of a value, whose table then has their defaults."""
    parameters = dict(inspect.signature(node.execute).parameters)
    inputs = {entry.id: entry for entry in node.define_schema().inputs}
    if parameters and list(parameters.values())[-1].kind is inspect.Parameter.VAR_KEYWORD:
        parameters.popitem()
        assert set(parameters) < set(inputs)
    else:
        assert list(parameters) == list(inputs)
    for name, parameter in parameters.items():
        if inputs[name].optional:
            assert parameter.default is not inspect.Parameter.empty, f"{name} is optional and needs a default"


@each_node
def test_the_registry_scanner_can_read_the_class(node: type[io.ComfyNode]) -> None:
    """The scanners read source: a direct base, a plain define_schema and a literal node_id, or no listing."""
    tree = ast.parse(inspect.getsource(node))
    (definition,) = tree.body
    assert [ast.unparse(base) for base in definition.bases] == ["io.ComfyNode"]
    methods = {method.name: method for method in definition.body if isinstance(method, ast.FunctionDef)}
    keywords = {
        keyword.arg: keyword.value
        for call in ast.walk(methods["define_schema"])
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "io.Schema"
        for keyword in call.keywords
    }
    assert ast.literal_eval(keywords["node_id"]) == node.__name__


def test_ids_are_unique() -> None:
    assert len({node.__name__ for node in NODES}) == len(NODES)


def test_the_module_offers_v3_only() -> None:
    import kleinod

    assert not hasattr(kleinod, "NODE_CLASS_MAPPINGS"), "ComfyUI would then never call comfy_entrypoint"
    assert kleinod.WEB_DIRECTORY == "./js"
    assert (ROOT / "js").is_dir()


def test_metadata_for_the_registry() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    comfy = data["tool"]["comfy"]
    assert data["project"]["dependencies"] == []
    assert not (ROOT / "requirements.txt").exists(), "the Manager would let pip change the user's environment"
    assert "web" not in comfy, "every script would be loaded twice"
    assert comfy["requires-comfyui"] == ">=0.30.0"
    newest = next(
        line.split()[1].strip("[]")
        for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("## ") and line.split()[1].strip("[]") != "Unreleased"
    )
    assert newest == data["project"]["version"]


def test_readme_lists_every_node() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \*\*(Klein [^*]+)\*\* \|", readme, re.M)
    assert sorted(listed) == sorted(node.GET_SCHEMA().display_name for node in NODES)
