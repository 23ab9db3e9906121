"""Help pages say what the nodes are: every node, every input, in one order, with a picture that is there.

A page is `js/docs/<NodeId>.md`. ComfyUI looks for its pictures in the same folder, and its help panel is some
280 pixels wide at first, so tables are out and pictures are no wider than four times that.
"""

from __future__ import annotations

import re

import pytest
from comfy_api.v0_0_2 import io
from kleinod.nodes import NODES
from PIL import Image

from tools.launch.workflows import ORDER as ORDER_OF_TEMPLATES
from tools.shipped.blueprints import BLUEPRINTS
from tools.shipped.pictures import DOCS, WIDTH
from tools.shipped.recipes import DRAWINGS, PHOTOGRAPHS, SHEETS

ORDER = ["Inputs", "Outputs", "Tip", "Trap"]
BENCHED = {"acceleration_pareto.png"}  # drawn by `run.py bench`, from runs that take hours

each_node = pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)


def read_page(node: type[io.ComfyNode]) -> str:
    return (DOCS / f"{node.__name__}.md").read_text(encoding="utf-8")


def read_sections(page: str) -> dict[str, str]:
    """Heading -> text; the part above the first heading of the second level has the name ''."""
    parts = re.split(r"^## (.+)$", page, flags=re.M)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def list_pictures(page: str) -> list[tuple[str, str]]:
    """Alternative text and file of each picture."""
    return re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page)


def name_on_node(field: io.Input) -> str:
    """An input as its user sees it; one that grows shows the sockets, not itself."""
    if isinstance(field, io.Autogrow.Input):
        return ", ".join(field.template.names[:2]) + " ..."
    return field.display_name or field.id


def test_every_node_has_a_page_and_no_other_is_there() -> None:
    assert {page.stem for page in DOCS.glob("*.md")} == {node.__name__ for node in NODES}


@each_node
def test_a_page_keeps_the_order(node: type[io.ComfyNode]) -> None:
    page = read_page(node)
    sections = read_sections(page)
    above = sections[""].strip().split("\n\n")
    title, *words, picture, caption = above
    assert title == f"# {node.GET_SCHEMA().display_name}"
    assert words and not any(part.startswith(("!", "* ", "#")) for part in words)
    assert re.fullmatch(r"!\[[^\]]+\]\([^)]+\)", picture)
    assert re.fullmatch(r"\*[^\n].+\*", caption, flags=re.S)
    assert list(sections)[1:5] == ORDER
    assert all(text.strip() for text in sections.values())


@each_node
def test_every_input_and_output_has_its_line(node: type[io.ComfyNode]) -> None:
    schema, sections = node.GET_SCHEMA(), read_sections(read_page(node))
    inputs = [
        f"**{name_on_node(field)}**" + (" (advanced)" if getattr(field, "advanced", None) else "")
        for field in schema.inputs
    ]
    outputs = [f"**{field.display_name}**" for field in schema.outputs]
    for heading, names in (("Inputs", inputs), ("Outputs", outputs)):
        lines = sections[heading].strip().splitlines()
        assert [re.match(r"\* (\*\*.+?\*\*(?: \(advanced\))?): ", line)[1] for line in lines] == names
        assert [line for line in lines if len(line) > 125 or not line.endswith(".")] == []


@each_node
def test_pictures_are_there_and_small(node: type[io.ComfyNode]) -> None:
    pictures = list_pictures(read_page(node))
    assert pictures
    for alternative, file in pictures:
        assert len(alternative) > 20, "say what can be seen, for those who cannot see it"
        path = DOCS / file
        assert path.stat().st_size < 150_000
        with Image.open(path) as picture:
            picture.load()
            assert {".jpg": "JPEG", ".png": "PNG"}[path.suffix] == picture.format
            assert WIDTH <= picture.width <= 4 * WIDTH
            assert picture.height <= 2.6 * picture.width, "longer than the panel is high"


def test_every_picture_can_be_made_again() -> None:
    shown = {file for node in NODES for _, file in list_pictures(read_page(node))}
    assert shown - BENCHED == {*SHEETS, *DRAWINGS, *PHOTOGRAPHS}
    assert sum(file.stat().st_size for file in DOCS.iterdir()) < 1_500_000


@each_node
def test_a_page_suits_the_narrow_panel(node: type[io.ComfyNode]) -> None:
    page = read_page(node)
    assert page.isascii() and page.endswith("\n")
    assert not re.search(r"^\|", page, flags=re.M), "a table has no room; make it a list"
    assert re.findall(r"^#(?!# ).*", page, flags=re.M) == page.splitlines()[:1], "one title, then level 2"
    assert not re.search(r"(?<!!)\[[^\]]*\]\(", page), "links leave the page; name the node instead"


def test_pages_name_what_there_is() -> None:
    """Every name in bold or italics that begins with Klein is a node's, a setting's or a shipped graph's."""
    known = {node.GET_SCHEMA().display_name for node in NODES} | {"Kleinod Fast", "Klein", "Klein distilled"}
    known |= {*BLUEPRINTS, *ORDER_OF_TEMPLATES}
    for node in NODES:
        for mark in (r"\*\*", r"(?<!\*)\*(?!\*)"):
            for name in re.findall(rf"{mark}(Klein[^*\n]*?){mark}", read_page(node)):
                assert name in known, f"{node.__name__}: {name}"
