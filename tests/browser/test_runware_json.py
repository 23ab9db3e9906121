"""Runware's JSON into a graph and out again, in a real Chromium."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tools.browser import RENDERERS, Studio, keep_screenshot
from tools.launch.server import Server

pytestmark = pytest.mark.browser

PLAIN = {
    "taskType": "imageInference", "taskUUID": "4d3a4156-5e5e-45db-b73c-a3200a7446ed",
    "model": "runware:400@5",
    "positivePrompt": "a windmill\nin reeds", "negativePrompt": "blurry", "width": 1152, "height": 768,
    "seed": 4294967295, "steps": 32, "CFGScale": 3.5, "settings": {"trueCFGScale": 4},
}  # fmt: skip
FULL = PLAIN | {
    "scheduler": "EulerDiscreteScheduler", "numberResults": 3, "outputFormat": "WEBP", "outputQuality": 80,
    "safety": {"checkContent": True, "mode": "fast"}, "ttl": 60, "includeCost": True,
    "deliveryMethod": "sync", "acceleration": "low",
    "acceleratorOptions": {
        "dbCache": True, "dbCacheThreshold": 0.4, "dbCacheSkipInterval": 3, "cacheStartStepPercentage": 10,
        "cacheMaxConsecutiveSteps": 2,
    },
    "lora": [
        {"model": "civitai:1@2", "weight": -0.75}, {"model": "a:b@3", "weight": 1, "transformer": "low"},
    ],
    "advancedFeatures": {
        "ultralytics": {
            "confidence": 0.5, "maskPadding": 7, "maskBlur": 9, "strength": 0.4, "steps": 12, "CFGScale": 5,
            "positivePrompt": "a calm face",
        }
    },
}  # fmt: skip
_PASTE = """
async ([type, text]) => {
  const { pasteRequest } = await import("/extensions/kleinod/kleinod.request.js");
  const node = LiteGraph.createNode(type);
  app.graph.add(node);
  if (type === "KleinodSampler") {
    const prompt = LiteGraph.createNode("KleinodPrompt");
    app.graph.add(prompt);
    prompt.connect(0, node, node.inputs.findIndex((slot) => slot.name === "positive"));
  }
  window.kleinodNode = node;
  await pasteRequest(node, text);
}
"""
_COPY = """
async () => {
  let text = "";
  Object.defineProperty(navigator, "clipboard", {
    configurable: true,
    value: { writeText: async (written) => { text = written; } },
  });
  const items = app.extensions
    .filter((extension) => extension.name === "kleinod.request")
    .flatMap((extension) => extension.getNodeMenuItems(window.kleinodNode));
  await items.find((item) => item.content === "Copy as Runware JSON").callback();
  return text;
}
"""


def paste(studio: Studio, node_type: str, request: object) -> dict:
    studio.page.evaluate("() => app.graph.clear()")
    studio.page.evaluate(_PASTE, [node_type, json.dumps(request)])
    return studio.build_prompt()


def make_uri(colour: str) -> str:
    made = io.BytesIO()
    Image.new("RGB", (96, 64), colour).save(made, "PNG")
    return "data:image/png;base64," + base64.b64encode(made.getvalue()).decode()


def read_colour(uri: str) -> tuple[int, ...]:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).getpixel((9, 9))


def pick(prompt: dict, node_type: str) -> dict:
    (node,) = [node for node in prompt.values() if node["class_type"] == node_type]
    return node["inputs"]


def test_a_request_goes_in_and_comes_out_again(studio: Studio, renderer: str) -> None:
    studio.complaints.clear()
    studio.open(vue_nodes=RENDERERS[renderer])
    for request in (PLAIN, FULL):
        prompt = paste(studio, "KleinodRunware", [request])
        copied = json.loads(studio.page.evaluate(_COPY))
        assert {name: value for name, value in copied.items() if name in request} | {
            "taskUUID": request["taskUUID"]
        } == request
    assert pick(prompt, "KleinodLoraStack")["rows"] == "-0.75 air=civitai:1@2\n1 low air=a:b@3"
    assert pick(prompt, "KleinodFaceSettings")["preset"] == "custom"
    runware = pick(prompt, "KleinodRunware")
    assert all(isinstance(runware[name], list) for name in ("acceleration", "loras", "face_refinement"))
    assert studio.complaints_about("kleinod") == []


def test_a_second_request_leaves_nothing_of_the_first(studio: Studio) -> None:
    studio.open()
    paste(studio, "KleinodRunware", FULL)
    studio.page.evaluate(
        """async (text) => {
          const { pasteRequest } = await import("/extensions/kleinod/kleinod.request.js");
          await pasteRequest(window.kleinodNode, text);
        }""",
        json.dumps(PLAIN),
    )
    copied = json.loads(studio.page.evaluate(_COPY))
    kept = {"outputFormat", "outputQuality", "safety", "ttl", "includeCost", "deliveryMethod", "taskUUID"}
    assert {name: value for name, value in copied.items() if name not in kept} == {
        name: value for name, value in PLAIN.items() if name not in kept
    } | {"acceleration": "high"}
    studio.page.get_by_text("loras was disconnected").first.wait_for()


def test_what_was_pasted_is_what_is_sent(studio: Studio, comfy_server: Server) -> None:
    studio.open()
    prompt = paste(studio, "KleinodRunware", FULL | {"width": 256, "height": 128})
    number = next(n for n, node in prompt.items() if node["class_type"] == "KleinodRunware")
    prompt["99"] = {"class_type": "SaveImage", "inputs": {"images": [number, 0], "filename_prefix": "pasted"}}
    assert len(comfy_server.client.run(prompt).images()) == 3


def test_the_sampler_takes_what_exists_here_and_says_what_does_not(studio: Studio, artifacts: Path) -> None:
    studio.open()
    prompt = paste(
        studio, "KleinodSampler", FULL | {"inputs": {"referenceImages": ["https://example.com/x.png"]}}
    )
    sampler = pick(prompt, "KleinodSampler")
    expected = {"width": 1152, "height": 768, "steps": 32, "guidance": 4, "seed": 4294967295, "results": 3}
    assert {name: sampler[name] for name in expected} == expected
    assert pick(prompt, "KleinodPrompt")["positive"] == "a windmill\nin reeds"
    assert pick(prompt, "KleinodAcceleration")["db_cache_threshold"] == 0.4
    for words in ("Reference pictures given by their address: 1.", "LoRAs by AIR id were left out"):
        studio.page.get_by_text(words).first.wait_for()
    notices = studio.page.locator(".p-toast-message, [data-testid=toast]")  # pages up to 1.57, and later
    assert notices.count() == 1, "what was left out stands in one notice with what was done"
    keep_screenshot(studio, artifacts / "screenshots", "pasted-notes")
    copied = json.loads(studio.page.evaluate(_COPY))
    assert copied["settings"] == {"trueCFGScale": 4}
    assert copied["acceleratorOptions"] == FULL["acceleratorOptions"]


def test_references_come_and_go_as_addresses_and_pictures(studio: Studio, renderer: str) -> None:
    studio.open(vue_nodes=RENDERERS[renderer])
    address = "https://assets.runware.ai/assets/inputs/cfa98149-a68b-4386-b745-6c8c1c1fac4a.jpg"
    given = [address, make_uri("red"), PLAIN["taskUUID"], make_uri("blue")]
    request = PLAIN | {"seed": 2**53 + 1, "inputs": {"referenceImages": given}}
    prompt = paste(studio, "KleinodRunware", request)
    assert pick(prompt, "KleinodReferences")["size"] == "native"
    assert len([node for node in prompt.values() if node["class_type"] == "LoadImage"]) == 2
    copied = studio.page.evaluate(_COPY)
    assert f'"seed": {2**53 + 1},' in copied  # which no number of JavaScript's holds
    found = json.loads(copied)["inputs"]["referenceImages"]
    assert [found[0], found[2]] == [given[0], given[2]]
    assert [read_colour(found[1]), read_colour(found[3])] == [(255, 0, 0), (0, 0, 255)]
    studio.page.evaluate(
        """async (text) => {
          const { pasteRequest } = await import("/extensions/kleinod/kleinod.request.js");
          await pasteRequest(window.kleinodNode, text);
        }""",
        json.dumps(PLAIN),
    )
    assert "inputs" not in json.loads(studio.page.evaluate(_COPY))


def test_addresses_and_output_go_to_the_options(studio: Studio) -> None:
    studio.open()
    far = {
        "outputType": "dataURI",
        "webhookURL": "https://a.example/x",
        "uploadEndpoint": "https://b.example/y",
    }
    prompt = paste(studio, "KleinodRunware", PLAIN | far)
    options = pick(prompt, "KleinodRunwareOptions")
    assert (options["output_type"], options["webhook_url"]) == ("dataURI", "https://a.example/x")
    copied = json.loads(studio.page.evaluate(_COPY))
    assert {name: copied[name] for name in far} == far


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"taskType": "ping"}, "no Runware imageInference request"),
        (PLAIN | {"CFGScale": 99}, "CFGScale is 99"),
        (PLAIN | {"lora": {"model": "a:b@1"}}, "lora must be a list"),
    ],
)
def test_what_is_refused_is_a_sentence_and_changes_nothing(
    studio: Studio, request_: dict, words: str
) -> None:
    studio.open()
    paste(studio, "KleinodRunware", PLAIN)
    before = studio.build_prompt()
    told = studio.page.evaluate(
        """async (text) => {
          const { pasteRequest } = await import("/extensions/kleinod/kleinod.request.js");
          return pasteRequest(window.kleinodNode, text).then(() => "", (error) => error.message);
        }""",
        json.dumps(request_),
    )
    assert words in told and studio.build_prompt() == before
