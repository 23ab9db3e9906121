"""What a user who asked for wildcards gets, and what is left alone even then."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("text", "possible"),
    [
        ("a {red|blue} fox", {"a red fox", "a blue fox"}),
        ("{a|b} {c|d}", {"a c", "a d", "b c", "b d"}),
        ("{one {two|three}|four}", {"one two", "one three", "four"}),
        ("{|softly }lit", {"lit", "softly lit"}),
        ('{"subject": "a {red|blue} fox", "n": {"x": 1}}', None),
        (
            "see https://example.com/logo /* not a remark */",
            {"see https://example.com/logo /* not a remark */"},
        ),
        (r"\{not|one\} of {them}", {"{not|one} of {them}"}),
        ("} { a | b", {"} { a | b"}),
        ("", {""}),
    ],
)
def test_wildcards(call, text: str, possible: set[str] | None) -> None:
    found = {call("wildcards.js", "pickWildcards", text) for _ in range(60)}
    if possible is None:
        possible = {text.replace("{red|blue}", colour) for colour in ("red", "blue")}
    assert found == possible
