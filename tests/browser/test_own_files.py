"""From downloaded files to the first picture, in a real Chromium: one button, and what follows the loader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model.tiny_klein import write_tiny_files
from tools.browser import RENDERERS, Studio, keep_screenshot
from tools.launch.environment import ROOT
from tools.launch.server import Server

pytestmark = pytest.mark.browser

TINY = "flux-2-klein-base-4b-tiny.safetensors"
BUTTON = ".kleinod-own-files:visible"
WANTED = ("width", "height", "steps", "guidance")
_BUILD = """
() => {
  const add = (type, x) => {
    const node = LiteGraph.createNode(type);
    node.pos = [x, 60];
    app.graph.add(node);
    return node;
  };
  const link = (from, output, to, input) =>
    from.connect(from.outputs.findIndex((one) => one.name === output), to,
                 to.inputs.findIndex((one) => one.name === input));
  const [loader, stack] = [add("KleinodLoader", 0), add("KleinodLoraStack", 400)];
  const sampler = add("KleinodSampler", 900);
  for (const type of ["KleinodCompare", "KleinodCalibrate"]) link(loader, "model", add(type, 1300), "model");
  loader.widgets.find((one) => one.name === "diffusion_model").value = "klein-nano (built in)";
  link(loader, "model", stack, "model");
  link(stack, "model", sampler, "model");
  Object.assign(app.canvas.ds, { scale: 0.9, offset: [80, 90] });
  app.canvas.setDirty(true, true);
}
"""
_READ = """
(type) => Object.fromEntries(app.graph.nodes.find((node) => node.type === type).widgets
  .map((one) => [one.name, one.value]))
"""
_SET = """
([type, name, value]) => {
  const node = app.graph.nodes.find((one) => one.type === type);
  const widget = node.widgets.find((one) => one.name === name);
  widget.value = value;
  widget.callback?.(value, app.canvas, node);
}
"""
_OPEN = """
async (graph) => {
  app.graph.clear();
  await app.loadGraphData(graph, true, true, "opened", { openSource: "template" });
}
"""


@pytest.fixture
def files(comfy_server: Server) -> Iterator[Path]:
    """ComfyUI's model folders with the tiny Klein in them."""
    written = write_tiny_files(comfy_server.base / "models")
    yield written.dit
    for file in (written.dit, written.text_encoder, written.vae):
        file.unlink()


def values(studio: Studio, kind: str, *names: str) -> list:
    read = studio.page.evaluate(_READ, kind)
    return [read[name] for name in names]


def wait_for(
    studio: Studio, wanted: list, kind: str = "KleinodSampler", names: tuple[str, ...] = WANTED
) -> None:
    """Each node asks the server for itself: one that has its answer says nothing of another."""
    for _ in range(200):
        if values(studio, kind, *names) == wanted:
            return
        studio.page.wait_for_timeout(100)
    assert values(studio, kind, *names) == wanted


def test_a_new_sampler_follows_the_loader_until_the_user_sets_it(
    studio: Studio, renderer: str, files: Path, artifacts: Path
) -> None:
    studio.open(vue_nodes=RENDERERS[renderer])
    studio.complaints.clear()
    studio.page.evaluate(_BUILD)
    wait_for(studio, [128, 128, 28, 4])
    for kind in ("KleinodCompare", "KleinodCalibrate"):
        # At 1024 they would take klein-nano hours.
        wait_for(studio, [128, 128], kind, ("width", "height"))
    studio.page.evaluate(_SET, ["KleinodSampler", "height", 192])
    studio.page.evaluate(_SET, ["KleinodLoader", "diffusion_model", TINY])
    wait_for(studio, [1024, 192, 28, 4])
    studio.page.evaluate(_SET, ["KleinodLoader", "variant", "distilled"])
    wait_for(studio, [1024, 192, 4, 1])
    keep_screenshot(studio, artifacts / "screenshots", f"following-{renderer}")
    graph = studio.page.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")
    studio.page.evaluate("async (graph) => app.loadGraphData(graph)", graph)
    studio.page.evaluate(_SET, ["KleinodLoader", "variant", "base"])
    studio.page.wait_for_timeout(600)
    assert values(studio, "KleinodSampler", *WANTED) == [1024, 192, 4, 1], "a graph from a file keeps its own"
    assert studio.complaints_about("kleinod") == []


def test_the_button_names_what_is_missing_then_picks_it(
    studio: Studio, renderer: str, comfy_server: Server, artifacts: Path
) -> None:
    studio.open(vue_nodes=RENDERERS[renderer])
    studio.complaints.clear()
    studio.page.evaluate(_BUILD)
    wait_for(studio, [128, 128, 28, 4])
    studio.page.locator(BUTTON).click()
    panel = studio.page.locator(".kleinod-missing")
    panel.wait_for()
    keep_screenshot(studio, artifacts / "screenshots", f"missing-{renderer}")
    links = panel.get_by_role("link")
    assert links.all_inner_texts() == [
        "flux-2-klein-base-4b.safetensors",
        "qwen_3_4b.safetensors",
        "flux2-vae.safetensors",
    ]
    assert "7.8 GB, into models/diffusion_models" in panel.inner_text()
    studio.page.keyboard.press("Escape")
    written = write_tiny_files(comfy_server.base / "models")
    try:
        studio.page.locator(BUTTON).click()
        wait_for(studio, [1024, 1024, 28, 4])
        picked = values(studio, "KleinodLoader", "diffusion_model", "text_encoder", "vae", "variant")
        assert picked == [TINY, written.text_encoder.name, written.vae.name, "base"]
        said = studio.page.get_by_text("Set to 1024 x 1024, 28 steps, guidance 4.")
        said.first.wait_for()
        keep_screenshot(studio, artifacts / "screenshots", f"own-files-{renderer}")
        options = studio.page.evaluate(
            "() => app.graph.nodes.find((one) => one.type === 'KleinodLoader')"
            ".widgets.find((one) => one.name === 'vae').options.values"
        )
        assert written.vae.name in options, "the pickers know files that came after the page"
    finally:
        for file in (written.dit, written.text_encoder, written.vae):
            file.unlink()
    assert studio.complaints_about("kleinod") == []


def test_the_first_template_takes_the_files_as_soon_as_they_are_there(
    studio: Studio, files: Path, artifacts: Path
) -> None:
    graph = json.loads((ROOT / "workflows" / "Klein - Text to Image.json").read_text("utf-8"))
    studio.open()
    studio.page.evaluate(_OPEN, graph)
    wait_for(studio, [1024, 1024, 28, 4])
    assert values(studio, "KleinodLoader", "diffusion_model") == [TINY]
    keep_screenshot(studio, artifacts / "screenshots", "own-files-template")
    saved = studio.page.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")
    studio.page.evaluate(_SET, ["KleinodLoader", "diffusion_model", "klein-nano (built in)"])
    saved["nodes"] = studio.page.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize())).nodes")
    studio.page.evaluate(_OPEN, saved)
    studio.page.wait_for_timeout(800)
    assert values(studio, "KleinodLoader", "diffusion_model") == ["klein-nano (built in)"], (
        "a copy is left alone"
    )


_INTO_SUBGRAPH = """
async (types) => {
  const nodes = app.graph.nodes.filter((node) => types.includes(node.type));
  app.graph.convertToSubgraph(new Set(nodes));
  await new Promise((then) => setTimeout(then, 300));
}
"""
_EVERYWHERE = """
(names) => {
  const graphs = [app.rootGraph, ...app.rootGraph.subgraphs.values()];
  const sampler = graphs.flatMap((graph) => graph.nodes).find((node) => node.type === "KleinodSampler");
  return names.map((name) => sampler.widgets.find((one) => one.name === name).value);
}
"""


@pytest.mark.parametrize("inside", [["KleinodSampler"], ["KleinodLoader", "KleinodLoraStack"]], ids=str)
def test_the_button_reaches_samplers_across_the_edge_of_a_subgraph(
    studio: Studio, files: Path, inside: list[str]
) -> None:
    studio.open()
    studio.page.evaluate(_BUILD)
    wait_for(studio, [128, 128, 28, 4])
    studio.page.evaluate(_INTO_SUBGRAPH, inside)
    assert studio.page.evaluate(_EVERYWHERE, list(WANTED)) == [128, 128, 28, 4]
    if "KleinodLoader" in inside:
        studio.page.evaluate(
            "() => app.canvas.openSubgraph(app.graph.nodes.find((one) => one.subgraph).subgraph)"
        )
    studio.page.locator(BUTTON).click()
    studio.page.get_by_text("Set to 1024 x 1024, 28 steps, guidance 4.").first.wait_for()
    assert studio.page.evaluate(_EVERYWHERE, list(WANTED)) == [1024, 1024, 28, 4]


def test_a_new_sampler_in_a_subgraph_follows_the_loader_outside(studio: Studio, files: Path) -> None:
    studio.open()
    studio.page.evaluate(_BUILD)
    wait_for(studio, [128, 128, 28, 4])
    studio.page.evaluate(_INTO_SUBGRAPH, ["KleinodSampler"])
    studio.page.evaluate(
        """() => {
          const { subgraph } = app.graph.nodes.find((one) => one.subgraph);
          const sampler = LiteGraph.createNode("KleinodSampler");
          subgraph.add(sampler);
          const [old] = subgraph.nodes.filter((one) => one.type === "KleinodSampler");
          const link = [...subgraph.links.values()].find((one) => one.target_id === old.id);
          const into = old.inputs[link.target_slot].name;
          const slot = sampler.inputs.find((one) => one.name === into);
          subgraph.inputNode.slots[link.origin_slot].connect(slot, sampler);
          subgraph.remove(old);
        }"""
    )
    for _ in range(50):
        if studio.page.evaluate(_EVERYWHERE, list(WANTED)) == [128, 128, 28, 4]:
            return
        studio.page.wait_for_timeout(100)
    assert studio.page.evaluate(_EVERYWHERE, list(WANTED)) == [128, 128, 28, 4]
