"""The texts that translators of `locales/` work from, and what their files miss.

    python -m tools.shipped.locales                the gaps of every language
    python -m tools.shipped.locales --source FILE  the English texts, laid out as a language's `nodeDefs.json`

English itself has no file: the schema is its source (ComfyUI lays a locale over the schema, English too).
ComfyUI reads `locales/<language>/{main,nodeDefs,settings,commands}.json`; ids with a dot are written with
an underscore, outputs go by their number, and `@ { } |` have a meaning of their own in vue-i18n. Of choices
ComfyUI translates none: js/kleinod.choices.js shows those under `options` with the name that tooltips, files
and the API use behind.
"""

from __future__ import annotations

import argparse
import ast
import json
import logging
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "locales"
LANGUAGES = ("de", "es", "fr", "ja", "ko", "zh")
SPECIAL = frozenset("@{}|")
# Inputs whose choices are names, and choices that are words in no language.
NAMED = {"diffusion_model", "text_encoder", "vae", "lora", "detector", "calibration", "scheduler", "endpoint"}
NAMED |= {"aspect", "weight_dtype", "text_encoder_device", "output_format", "upload_format", "output_type"}
ALIKE = {"Klein"}

logger = logging.getLogger("kleinod.tools.shipped.locales")


def list_texts(nodes: Iterable[type]) -> dict[str, Any]:
    """Everything of these node classes that a user reads, as `nodeDefs.json` would hold it."""
    return {node.__name__: _list_node_texts(node.GET_SCHEMA()) for node in nodes}


def _list_node_texts(schema: Any) -> dict[str, Any]:
    inputs = {field.id: _list_field_texts(field, field.id) for field in schema.inputs}
    outputs = {
        str(index): _list_field_texts(field, field.id or field.io_type)
        for index, field in enumerate(schema.outputs)
    }
    texts = {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": inputs,
        "outputs": outputs,
    }
    return {name: text for name, text in texts.items() if text}


def _list_field_texts(field: Any, name: str) -> dict[str, Any]:
    texts = {"name": field.display_name or name, "tooltip": field.tooltip, "options": _list_choices(field)}
    return {kind: text for kind, text in texts.items() if text}


def _list_choices(field: Any) -> dict[str, str]:
    """Choices that are words; files, formats, models and schedulers have names."""
    if field.id in NAMED:
        return {}
    return {choice: choice for choice in getattr(field, "options", None) or [] if choice not in ALIKE}


def list_script_texts() -> set[str]:
    """What the browser scripts say: the first argument of every `say` and `noted`."""
    scripts = "".join(file.read_text("utf-8") for file in sorted((ROOT / "js").rglob("*.js")))
    return set(re.findall(r"\b(?:say|noted)\(\s*\"((?:[^\"\\]|\\.)*)\"", scripts))


def list_server_texts() -> set[str]:
    """What stands on nodes: the first argument of every `say` in `nodes`, a literal; else ValueError."""
    texts = set()
    for file in sorted((ROOT / "nodes").rglob("*.py")):
        source = file.read_text("utf-8")
        if "import" not in source or " say" not in source:
            continue
        for call in ast.walk(ast.parse(source)):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "say":
                first = call.args[0]
                if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
                    raise ValueError(f"{file.name}, line {call.lineno}: say takes a literal.")
                texts.add(first.value)
    return texts


def list_template_texts() -> set[str]:
    """What js/kleinod.templates.js says in the page's language of the shipped workflows: titles of groups,
    without their number, and of nodes that have one of their own; notes, by the paragraph.
    """
    texts = set()
    for file in sorted((ROOT / "workflows").glob("*.json")):
        graph = json.loads(file.read_text("utf-8"))
        texts |= {re.sub(r"^\d+ +", "", group["title"]) for group in graph["groups"]}
        texts |= {node["title"] for node in graph["nodes"] if node.get("title")}
        notes = [node["widgets_values"][0] for node in graph["nodes"] if node["type"] == "MarkdownNote"]
        texts |= {paragraph.strip() for note in notes for paragraph in re.split(r"\n{2,}", note)}
    return texts


def find_gaps(source: Any, translated: Any, path: str = "") -> list[str]:
    """One line for every text that is missing, empty, left over, or not plain; none: the file is complete."""
    if isinstance(source, dict):
        if not isinstance(translated, dict):
            return [f"{path}: missing"]
        gaps = [f"{path}.{name}: left over" for name in translated if name not in source]
        for name, value in source.items():
            gaps += find_gaps(value, translated.get(name), f"{path}.{name}" if path else name)
        return gaps
    if not isinstance(translated, str) or not translated.strip():
        return [f"{path}: missing"]
    if SPECIAL & set(translated):
        return [f"{path}: holds one of @ {{ }} |, which vue-i18n reads as syntax"]
    return []


def flatten(texts: Any, path: str = "") -> dict[str, str]:
    """Every single text by its path, `KleinodLoader.inputs.vae.tooltip`."""
    if not isinstance(texts, dict):
        return {path: texts}
    parts = [flatten(value, f"{path}.{name}" if path else name) for name, value in texts.items()]
    return {name: text for part in parts for name, text in part.items()}


def read(language: str, name: str) -> Any:
    """A file of a language, or an empty object where there is none yet."""
    file = FOLDER / language / f"{name}.json"
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.shipped.locales", description=__doc__)
    parser.add_argument("--source", type=Path, help="write the English texts to this file")
    chosen = parser.parse_args(argv)
    from tools.launch.pack import enable_comfyui, load_pack

    enable_comfyui(ROOT / ".runtime" / "comfyui", ("--cpu",))
    load_pack(ROOT)
    from kleinod.nodes import NODES

    source = list_texts(NODES)
    if chosen.source:
        chosen.source.write_text(json.dumps(source, indent=2, ensure_ascii=False) + "\n", "utf-8")
        return 0
    gaps = [f"{name} {gap}" for name in LANGUAGES for gap in find_gaps(source, read(name, "nodeDefs"))]
    for gap in gaps:
        logger.warning(gap)
    return 1 if gaps else 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main(sys.argv[1:]))
