"""The one rule of the pack that a browser script repeats, the text of LoRA rows: both are run, on the same
input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from kleinod_pure.loras.rows import format_row, parse_rows

Call = Callable[..., Any]
ROW_FIELDS = ("file", "weight", "stage", "enabled", "air", "sha256")


# Words that mean something in a row, between words that mean nothing.
_WORDS = st.one_of(
    st.sampled_from(
        'style.safetensors \'it"s.safetensors\' "quoted 0.5 high" 0.8 -.5 +1. 4.01 1e2 high LOW both off ON '
        "air=civitai:123@456 air=none air= sha256= # <lora:film:0.7> <lora:sub\\two> <lora:a:b> <lora::1> "
        "back\\slash.SFT people/anna v2.safetensors < > : ' \" 0 -0".split(" ")
    ),
    st.just("sha256=" + "aB" * 32),
    st.text(st.characters(codec="utf-8", exclude_categories=["Nd", "Cc", "Cf", "Zl", "Zp"]), max_size=8),
    st.text("0123456789.,+-e", max_size=4),
)
_TEXTS = st.lists(st.lists(_WORDS, max_size=5).map(" ".join), max_size=4).map("\n".join)


@settings(max_examples=150, deadline=None)
@example("style.safetensors 0.8")
@example("people/anna v2.safetensors 1.2 high air=civitai:123@456")
@example("sketch -0.5 off")
@example("a name with 2 words low 0.3")
@example('"quoted 0.5 high" 2')
@example("'it\"s.safetensors' .5 on")
@example("portrait, <lora:one:1> and <lora:sub/two>")
@example("<lora:bad:heavy>")
@example("too heavy.safetensors 5")
@example("twice.safetensors 1 2")
@example("unknown.safetensors word")
@example("air=runware:1@2 0.5")
@example("back\\slash.SFT HIGH OFF")
@example("hash.safetensors sha256=12")
@example("1.5")
@example("# only a remark")
@given(_TEXTS)
def test_both_readers_of_lora_rows_agree(call: Call, text: str) -> None:
    """The same rows, the same refusals, and each reads what the other writes."""
    for line in text.split("\n"):
        parsed = call("lora_rows.js", "parseRows", line)
        try:
            expected = parse_rows(line).rows
        except ValueError:
            assert [entry["kind"] for entry in parsed] == ["broken"]
            assert call("lora_rows.js", "formatRows", parsed) == line.strip()
            continue
        found = [entry for entry in parsed if entry["kind"] == "row"]
        if any({"'", '"'} <= set(row["file"]) for row in found):
            continue  # no quotes can hold such a name
        assert [[row[name] for name in ROW_FIELDS] for row in found] == [
            [getattr(row, name) for name in ROW_FIELDS] for row in expected
        ]
        assert parse_rows(call("lora_rows.js", "formatRows", parsed)).rows == expected
        assert call("lora_rows.js", "parseRows", "\n".join(map(format_row, parse_rows(line).rows))) == found
