"""Prompts arrive as they were typed, unless their node was asked for wildcards."""

from __future__ import annotations

import pytest

from tools.browser import RENDERERS, Studio

pytestmark = pytest.mark.browser

TYPED = '{"subject": "a fox", "colours": {"fur": "red"}} see https://example.com/logo /* {day|night} */'
FIELDS = {
    "KleinodPrompt": ["positive", "negative"],
    "KleinodRunware": ["positive_prompt", "negative_prompt"],
    "KleinodBFL": ["prompt"],
    "KleinodFaceSettings": ["positive_prompt", "negative_prompt"],
    "KleinodFaceRefiner": ["face_prompts"],
}
_BUILD = """
([type, names, text]) => {
  app.graph.clear();
  const node = LiteGraph.createNode(type);
  app.graph.add(node);
  for (const name of names) node.widgets.find((widget) => widget.name === name).value = text;
}
"""
_CHOOSE = """
() => {
  const [node] = app.graph.nodes;
  const items = app.extensions
    .filter((extension) => extension.name === "kleinod.wildcards")
    .flatMap((extension) => extension.getNodeMenuItems(node));
  items[0].callback();
  return items[0].content;
}
"""
_RELOAD = "async () => { await app.loadGraphData(JSON.parse(JSON.stringify(app.graph.serialize()))); }"


def sent(studio: Studio, names: list[str]) -> set[str]:
    (node,) = studio.build_prompt().values()
    return {node["inputs"][name] for name in names}


def test_every_prompt_is_sent_as_typed_until_wildcards_are_asked_for(studio: Studio, renderer: str) -> None:
    studio.open(vue_nodes=RENDERERS[renderer])
    for kind, names in FIELDS.items():
        studio.page.evaluate(_BUILD, [kind, names, TYPED])
        assert sent(studio, names) == {TYPED}, kind
        assert studio.page.evaluate(_CHOOSE).startswith("Use wildcards")
        studio.page.evaluate(_RELOAD)
        found = set().union(*(sent(studio, names) for _ in range(20)))
        assert found == {TYPED.replace("{day|night}", word) for word in ("day", "night")}, kind
        assert studio.page.evaluate(_CHOOSE) == "Send prompts as typed"
        assert sent(studio, names) == {TYPED}, kind
