"""Every language says everything the schema says, and nothing else."""

from __future__ import annotations

import ast
import inspect
import re
from collections import Counter
from pathlib import Path

import pytest
from kleinod.nodes import NODES
from kleinod.nodes.base import errors
from kleinod.nodes.remote import errors as remote_errors
from kleinod.nodes.remote.services import list_services

from tools.shipped import locales

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"Kleinod_Keys_Code", "Kleinod_Hosts_Pictures", "Kleinod_Spending_Limits", "Kleinod_Loras_Rows"}
SETTINGS |= {"Kleinod_Api_Answer", "Kleinod_Servers_Own", "Kleinod_Acceleration_Learning"}
KEYS = {f"Kleinod_Keys_{service.title}" for service in list_services()}  # made of the server's list
# Names that some of these languages write as English does.
ALIKE = {"mu", "latent", "images", "image", "sigmas", "prompt", "options", "detector", "endpoint"}
ALIKE |= {"Klein Runware", "Klein BFL", "Klein Prompt", "Klein Sampler"}
# Choices: the same word, and sometimes the same meaning.
ALIKE |= {"base", "sigma", "coefficients", "exact (9B-KV)", "pixels", "error", "score", "spectral"}
# A letter that every sentence of the language holds, and one that shows a file read in the wrong encoding.
LETTERS = {
    "de": r"[a-z]", "es": r"[a-z]", "fr": r"[a-z]",
    "ja": r"[\u3040-\u30ff]", "ko": r"[\uac00-\ud7a3]", "zh": r"[\u4e00-\u9fff]",
}  # fmt: skip
JAPANESE = r"[\u3040-\u30ff\u4e00-\u9fff]"  # a short label may be all kanji
MOJIBAKE = r"[\ufffd\u00c3]|\u00e2\u20ac|\u00c2[\u0080-\u00bf]|  |\?\?"

# Names, and examples of what to type: alike in every language.
NAMES = {
    "AIR",
    "Klein",
    "Runware JSON",
    "Runware",
    "Black Forest Labs",
    "civitai:123@456",
    "images.example.com",
    "ABCD-EFGH-JKMN-PQRS",
}
NAMES |= {r"style.safetensors 0.8\nface.safetensors 1 low"}

each_language = pytest.mark.parametrize("language", locales.LANGUAGES)


def is_sentence(path: str) -> bool:
    return path.endswith((".tooltip", ".description"))


def read_scripts() -> str:
    return "".join(file.read_text("utf-8") for file in (ROOT / "js").glob("*.js"))


def count_numbers(text: str) -> Counter[str]:
    """Decimal commas, and commas between thousands, are read as English would write them."""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    return Counter(re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d)", ".", text)))


def test_the_languages_are_those_promised() -> None:
    assert {folder.name for folder in (ROOT / "locales").iterdir()} == set(locales.LANGUAGES)


@each_language
def test_nodes_are_translated_whole(language: str) -> None:
    source, translated = locales.list_texts(NODES), locales.read(language, "nodeDefs")
    assert locales.find_gaps(source, translated) == []
    english, other = locales.flatten(source), locales.flatten(translated)
    left = {path: text for path, text in other.items() if text == english[path] and text not in ALIKE}
    assert left == {}, "these are still English"


@each_language
def test_sentences_are_of_the_language_and_say_the_same_numbers(language: str) -> None:
    english = locales.flatten(locales.list_texts(NODES))
    for path, text in locales.flatten(locales.read(language, "nodeDefs")).items():
        assert not re.search(MOJIBAKE, text), f"{path}: {text}"
        if not is_sentence(path):
            continue
        assert re.search(LETTERS[language], text), f"{path}: {text}"
        assert text.endswith((".", "\u3002")), f"{path}: {text}"
        if "@" not in english[path]:  # an id that vue-i18n would take for syntax
            missing = count_numbers(english[path]) - count_numbers(text)
            assert not missing, f"{path} lacks {missing}: {text}"


@each_language
def test_tooltips_name_choices_as_the_node_shows_them(language: str) -> None:
    translated = locales.read(language, "nodeDefs")
    for node in NODES:
        for field in node.GET_SCHEMA().inputs:
            text = translated[node.__name__]["inputs"][field.id]["tooltip"]
            for choice in getattr(field, "options", None) or []:
                if f"{choice}: " in field.tooltip or " " in choice and choice in field.tooltip:
                    assert choice in text, f"{node.__name__}.{field.id} does not name {choice!r}: {text}"


def test_choices_that_are_words_are_translated_and_names_are_not() -> None:
    texts = locales.list_texts(NODES)
    assert set(texts["KleinodSampler"]["inputs"]["acceleration"]["options"]) >= {"none", "low", "highest"}
    assert "options" not in texts["KleinodSampler"]["inputs"]["scheduler"]
    assert "options" not in texts["KleinodLoader"]["inputs"]["vae"], (
        "its files are not those of another computer"
    )
    known = {field.id for node in NODES for field in node.GET_SCHEMA().inputs}
    assert known >= locales.NAMED, "an input that is gone"


@each_language
def test_choices_of_an_input_can_be_told_apart(language: str) -> None:
    for node, texts in locales.read(language, "nodeDefs").items():
        for field, told in texts["inputs"].items():
            names = list(told.get("options", {}).values())
            assert len(set(names)) == len(names), f"{node}.{field}: {names}"


@each_language
def test_settings_are_translated_whole(language: str) -> None:
    settings = locales.read(language, "settings")
    assert set(settings) == SETTINGS | KEYS
    script = read_scripts()
    assert all(name.replace("_", ".") in script for name in SETTINGS)
    assert len(re.findall(r"category: \[", script)) == len(SETTINGS) + 1, "a setting is new or gone"
    for entry in settings.values():
        assert entry["name"].strip() and not locales.SPECIAL & set("".join(entry.values()))


@each_language
def test_categories_are_translated_whole(language: str) -> None:
    """Shelves of the node library, and headings of the settings; Kleinod is a name everywhere."""
    shelves = {part for node in NODES for part in node.GET_SCHEMA().category.split("/")} - {"Kleinod"}
    headings = set(re.findall(r"category: \[\"Kleinod\", \"([^\"]+)\"", read_scripts()))
    texts = locales.read(language, "main")
    assert set(texts) == {"kleinod", "nodeCategories", "settingsCategories"}
    assert set(texts["nodeCategories"]) == shelves and set(texts["settingsCategories"]) == headings
    labels = {**texts["nodeCategories"], **texts["settingsCategories"]}
    assert all(text.strip() and not locales.SPECIAL & set(text) for text in labels.values())
    assert all(text != name for name, text in texts["nodeCategories"].items())


@each_language
def test_commands_are_translated_whole(language: str) -> None:
    commands = dict(re.findall(r"id: \"(Kleinod\.\w+)\",\s*label: \"([^\"]+)\"", read_scripts()))
    assert commands
    texts = locales.read(language, "commands")
    assert set(texts) == {name.replace(".", "_") for name in commands}
    for name, label in commands.items():
        assert texts[name.replace(".", "_")]["label"] not in ("", label)


@each_language
def test_the_scripts_are_translated_whole(language: str) -> None:
    """What a script draws and the server says on a node goes through `say`; every language knows it, values
    stay where they belong."""
    words = locales.read(language, "main")["kleinod"]
    source = locales.list_script_texts() | locales.list_template_texts() | locales.list_server_texts()
    assert source - set(words) == set(), "missing"
    assert set(words) - source == set(), "left over"
    for english, text in words.items():
        assert text.strip() and not locales.SPECIAL & set(text), english
        assert set(re.findall(r"%\d", text)) == set(re.findall(r"%\d", english)), english
        assert not re.search(MOJIBAKE, text), text
        if english.endswith("."):
            assert text.endswith((".", "\u3002", "\u2026")), text
        if language in ("ja", "ko", "zh") and re.search(r"[a-z]{3} [a-z]{3}", english):
            assert re.search(LETTERS[language] if language != "ja" else JAPANESE, text), text


def test_scripts_draw_nothing_past_the_languages() -> None:
    """A literal with a word in it never goes straight to the page; settings and commands are ComfyUI's."""
    drawn = r"\b(?:textContent|title|placeholder|alt|summary|message|content|detail|\"aria-label\"|ariaLabel)"
    for file in sorted((ROOT / "js").rglob("*.js")):
        script = file.read_text("utf-8")
        for text in re.findall(drawn + r"\s*[:=]\s*[\"`]([^\"`]*)[\"`]", script):
            plain = re.sub(r"\$\{[^}]*\}", "", text)
            assert text in NAMES or not re.search(r"[A-Za-z]{2}", plain), f"{file.name}: {text!r}"


def test_what_stops_a_node_is_a_sentence_of_the_languages() -> None:
    """mypy holds every error of ours to a `Sentence`; here, that none is made past `say`: a plain string may
    hold a name, a number or another error, never words."""
    kinds = {name for room in (errors, remote_errors) for name, kind in vars(room).items() if is_error(kind)}
    assert {"InputError", "NoKey"} <= kinds
    taken = [
        inspect.signature(getattr(errors, kind).__init__).parameters["text"]
        for kind in ("ArtistError", "InputError")
    ]
    assert [parameter.annotation for parameter in taken] == ["Sentence", "Sentence"]
    typed = []
    for file in sorted((ROOT / "nodes").rglob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        ours = {name.name for node in froms for name in node.names if node.module} & (kinds | {"Sentence"})
        for call in ast.walk(tree):
            named = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ours
            if named and call.args and holds_words(call.args[0]):
                typed.append(f"{file.name}, line {call.lineno}")
    assert typed == []


def holds_words(text: ast.expr) -> bool:
    """Whether a literal holds two words, or the literal parts of an f-string one."""
    if isinstance(text, ast.JoinedStr):
        plain = "".join(str(part.value) for part in text.values if isinstance(part, ast.Constant))
        return bool(re.search(r"[A-Za-z]{3}", plain))  # a unit is none
    return isinstance(text, ast.Constant) and bool(re.search(r"[a-z]{2} [a-z]{2}", str(text.value)))


def test_words_past_the_languages_are_found() -> None:
    for code, wanted in (
        ("'its layers do not fit'", True), ("f'{name} is none'", True), ("f'{a}x{b} dB'", False),
        ("'klein-nano'", False), ("words", False),
    ):  # fmt: skip
        assert holds_words(ast.parse(code, mode="eval").body) is wanted, code


def is_error(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, errors.ArtistError)


def test_gaps_are_found() -> None:
    source = {"Node": {"inputs": {"a": {"name": "a"}, "b": {"name": "b"}}}}
    given = {"Node": {"inputs": {"a": {"name": " "}, "b": {"name": "x | y"}, "c": {"name": "c"}}}}
    assert [gap.split(":")[0] for gap in locales.find_gaps(source, given)] == [
        "Node.inputs.c", "Node.inputs.a.name", "Node.inputs.b.name",
    ]  # fmt: skip
    assert locales.find_gaps(source, {}) == ["Node: missing"]
