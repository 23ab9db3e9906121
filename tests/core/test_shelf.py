"""The shelf of templates, in the script itself."""

from __future__ import annotations

import re
from pathlib import Path

from tools.launch.workflows import ORDER


def test_each_template_has_a_line_of_its_own_in_the_order_of_learning(repository: Path) -> None:
    script = (repository / "js" / "lib" / "shelf.js").read_text("utf-8")
    told = re.findall(r'^  "(Klein - [^"]+)": noted\("([^"]+)"\)', script, re.M)
    assert [name for name, _ in told] == list(ORDER)
    for name, line in told:
        assert len(line) <= 80, "two lines of a card"
        assert len(line) > 40 and not line.startswith(name.removeprefix("Klein - ")), "no more than the name"


def test_ours_come_in_their_order_and_others_stay(call) -> None:
    mixed = ["Another", *reversed(ORDER), "One more"]
    assert call("shelf.js", "inOrder", mixed) == [*ORDER, "Another", "One more"]
    assert call("shelf.js", "inOrder", ["b", "a"]) == ["b", "a"]
    assert call("shelf.js", "inOrder", [ORDER[2], ORDER[0]]) == [ORDER[0], ORDER[2]]
