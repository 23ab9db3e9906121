"""The scripts' words in another language."""

from __future__ import annotations

NODES = {
    "KleinodSampler": {"inputs": {"acceleration": {"name": "x", "options": {"none": "\u65e0", "eu": "eu"}}}},
    "Other": {"inputs": {"acceleration": {"options": {"none": "x"}}}},
    "KleinodPrompt": {},
}


def test_a_choice_keeps_its_name_behind_that_of_the_language(call) -> None:
    def name(node: str, field: str, choice: str) -> str:
        return call("words.js", "nameChoice", node, field, choice)

    assert name("KleinodSampler", "acceleration", "none") == "none", "before any language is known"
    call("words.js", "learnChoices", NODES)
    assert name("KleinodSampler", "acceleration", "none") == "\u65e0 (none)"
    assert name("KleinodSampler", "acceleration", "eu") == "eu"
    assert name("KleinodSampler", "acceleration", "a saved choice of another version") == (
        "a saved choice of another version"
    )
    assert name("KleinodSampler", "scheduler", "none") == name("Other", "acceleration", "none") == "none"
    assert call("words.js", "namesChoices", "KleinodSampler", "acceleration")
    assert not call("words.js", "namesChoices", "KleinodPrompt", "positive")


def test_a_note_is_said_by_the_paragraph(call) -> None:
    call("words.js", "learn", {"One.": "Eins.", "Two\nlines.": "Zwei\nZeilen."})
    assert call("words.js", "sayParagraphs", "One.\n\nTwo\nlines.\n\n\nThree.\n") == (
        "Eins.\n\nZwei\nZeilen.\n\nThree."
    )
    call("words.js", "learn", {})
