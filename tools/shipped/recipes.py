"""What runs for each picture of the help pages; `tools/shipped/pictures.py` runs it and lays it out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tools.launch.client import ComfyClient, load_prompt
from tools.launch.workflows import API_FOLDER

Caption = str | Callable[[dict[str, dict]], str]
Link = list[str | int]


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet: the `index`-th image that `node` showed, and the words under it."""

    node: str
    caption: Caption = ""
    index: int = 0


@dataclass(frozen=True)
class Sheet:
    prompt: dict[str, dict]
    cells: list[Cell]
    columns: int = 2


@dataclass(frozen=True)
class Photograph:
    """A graph on the page. Those `shown`, node -> height in canvas units, stand in a column and are cut out;
    the rest of the graph stands aside. `advanced`: the first with the inputs that are hidden at first.
    """

    prompt: dict[str, dict]
    shown: dict[str, int]
    advanced: bool = False
    width: int = 330


@dataclass
class Graph:
    """An API prompt in the making; widgets left out take ComfyUI's defaults (`fill_defaults`)."""

    nodes: dict[str, dict] = field(default_factory=dict)

    def add(self, kind: str, **inputs: Any) -> str:
        number = str(max(map(int, self.nodes), default=0) + 1)
        self.nodes[number] = {"class_type": kind, "inputs": inputs}
        return number

    def show(self, node: str, output: int = 0) -> str:
        return self.add("PreviewImage", images=[node, output])

    def read(self, node: str, output: int) -> str:
        return self.add("PreviewAny", source=[node, output])


class Painter(Graph):
    """A graph that paints with klein-nano: loader, then any number of prompts and samplers."""

    def __init__(self) -> None:
        super().__init__()
        self.loader = self.add("KleinodLoader")
        self.model: Link = [self.loader, 0]

    def write(self, positive: str, negative: str = "", **inputs: Any) -> str:
        prompt = {"positive": positive, "negative": negative, **inputs}
        return self.add("KleinodPrompt", clip=[self.loader, 1], **prompt)

    def paint(self, prompt: str, **inputs: Any) -> str:
        settings = {"model": self.model, "width": 128, "height": 128, "seed": 7, **inputs}
        return self.add(
            "KleinodSampler", positive=[prompt, 0], negative=[prompt, 1], vae=[self.loader, 2], **settings
        )

    def paint_with_core(self, prompt: str, model: Link, **inputs: Any) -> tuple[str, str]:
        """KSampler and the VAE Decode behind it."""
        latent = self.add("EmptyFlux2LatentImage", width=128, height=128)
        settings = {"model": model, "seed": 7, "steps": 28, "cfg": 4.0, **inputs}
        sampler = self.add(
            "KSampler", positive=[prompt, 0], negative=[prompt, 1], latent_image=[latent, 0], **settings
        )
        return sampler, self.add("VAEDecode", samples=[sampler, 0], vae=[self.loader, 2])


def fill_defaults(client: ComfyClient, prompt: dict[str, dict]) -> dict[str, dict]:
    """The prompt with every widget that it leaves out at ComfyUI's own default, and with titles."""
    filled = {}
    for number, node in prompt.items():
        kind = node["class_type"]
        info = client.get_json(f"/object_info/{kind}")[kind]
        fields = info["input"]["required"] | info["input"].get("optional", {})
        defaults = {name: _default_of(client, *spec) for name, spec in fields.items()}
        given = {name: value for name, value in defaults.items() if value is not None} | node["inputs"]
        filled[number] = {"class_type": kind, "inputs": given, "_meta": {"title": info["display_name"]}}
    return filled


def _default_of(client: ComfyClient, kind: str | list[str], options: dict[str, Any] | None = None) -> Any:
    """None for an input that is no widget."""
    options = options or {}
    if isinstance(kind, list):
        return kind[0]
    if kind not in ("INT", "FLOAT", "BOOLEAN", "STRING", "COMBO"):
        return None
    if kind == "COMBO" and "remote" in options:
        return client.get_json(options["remote"]["route"])[0]
    choices = options.get("options") or [""]
    return options.get("default", choices[0])


def _prompts() -> Sheet:
    graph = Painter()
    words = (
        "a fox on a blue background",
        "a fox on a pink background",
        "a panda on a pink background",
        "a rocket on a yellow background",
    )
    return Sheet(graph.nodes, [Cell(graph.show(graph.paint(graph.write(text))), text) for text in words])


def _strength() -> Sheet:
    graph = Painter()
    lion = graph.paint(graph.write("a lion on a blue background"))
    tiger = graph.write("a tiger on a blue background")
    cells = [Cell(graph.show(lion), "image")]
    for strength in (0.3, 0.6, 0.8, 0.9, 1.0):
        picture = graph.paint(tiger, image=[lion, 0], strength=strength)
        cells.append(Cell(graph.show(picture), f"{strength:g}"))
    return Sheet(graph.nodes, cells, 3)


def _edit() -> Sheet:
    graph = _load("Klein - Edit with References", "12", "13", "14")
    words = graph.nodes["8"]["inputs"]["positive"]
    cells = [Cell(graph.show("6", 3), "sheet"), Cell(graph.show("9"), words)]
    return Sheet(graph.nodes, cells, 1)


def _weighed() -> Sheet:
    """One edit of two references under one seed, with other weights, steps and places."""
    graph = Painter()
    panda = graph.paint(graph.write("a panda on a yellow background"))
    frog = graph.paint(graph.write("a frog on a purple background"), seed=8)
    whole, half = (graph.add("SolidMask", value=v, width=w, height=128) for v, w in ((0.0, 192), (1.0, 96)))
    left = graph.add("MaskComposite", destination=[whole, 0], source=[half, 0], x=0, y=0, operation="add")
    right = graph.add("InvertMask", mask=[left, 0])
    ways: tuple[tuple[str, dict[str, Any]], ...] = (
        ("in full", {}),
        ("weights 1, 0.25", {"weights": "1, 0.25"}),
        ("weights 0, 1", {"weights": "0, 1"}),
        ("steps 0-50, 50-100", {"steps": "0-50, 50-100"}),
        ("places left, right", {"places.place_1": [left, 0], "places.place_2": [right, 0]}),
        ("places right, left", {"places.place_1": [right, 0], "places.place_2": [left, 0]}),
    )
    cells = []
    for caption, dials in ways:
        images: dict[str, Any] = {"images.image_1": [panda, 0], "images.image_2": [frog, 0]}
        references = graph.add("KleinodReferences", **images, **dials)
        words = "image 1 next to image 2 on a blue background"
        prompt = graph.write(words, references=[references, 0], vae=[graph.loader, 2])
        cells.append(Cell(graph.show(graph.paint(prompt, width=192)), caption))
    return Sheet(graph.nodes, cells, 3)


def _loras() -> Sheet:
    graph = Painter()
    prompt = graph.write("a penguin on a purple background, ink drawing")
    style, subject = "klein-nano style.safetensors 1", "klein-nano subject.safetensors 1"
    rows = {"no LoRA": "", "subject": subject, "style": style, "both": f"{subject}\n{style}"}
    cells = []
    for caption, text in rows.items():
        stack = graph.add("KleinodLoraStack", model=[graph.loader, 0], rows=text)
        picture = graph.paint(prompt, model=[stack, 0], seed=11)
        cells.append(Cell(graph.show(picture), caption))
    return Sheet(graph.nodes, cells)


def _levels() -> Sheet:
    graph = Painter()
    prompt = graph.write("a cool face on a purple background")
    cells = []
    for level in ("none", "medium", "high", "highest"):
        picture = graph.paint(prompt, acceleration=level)
        data = graph.read(picture, 3)
        cells.append(Cell(graph.show(picture), _count_steps(level, data)))
    return Sheet(graph.nodes, cells)


def _count_steps(level: str, node: str, steps: int = 28) -> Caption:
    """How many steps of the run were computed, as the sampler's own data says."""

    def caption(outputs: dict[str, dict]) -> str:
        runs = json.loads(outputs[node]["text"][0])["runs"]
        return f"{level}: {runs[0]['computed'] if runs else steps} of {steps} steps"

    return caption


def _fast() -> Sheet:
    graph = Painter()
    prompt = graph.write("a lion on a blue background")
    runs = (("Default", 28), ("Kleinod Fast", 14), ("Default", 8), ("Kleinod Fast", 8))
    cells = []
    for scheduler, steps in runs:
        picture = graph.paint(prompt, scheduler=scheduler, steps=steps)
        cells.append(Cell(graph.show(picture), f"{scheduler}, {steps} steps"))
    return Sheet(graph.nodes, cells)


def _load(name: str, *left_out: str) -> Graph:
    prompt = load_prompt(API_FOLDER / f"{name}.json")
    return Graph({number: node for number, node in prompt.items() if number not in left_out})


def _strengths() -> Sheet:
    graph = _load("Klein - Face Refine", "11", "12", "13", "14", "15", "16")
    given = load_prompt(API_FOLDER / "Klein - Face Refine.json")
    cells = []
    for strength in (0.0, 0.3, 0.55, 0.75):
        settings = graph.add("KleinodFaceSettings", **(given["11"]["inputs"] | {"strength": strength}))
        faces = graph.add("KleinodFaceRefiner", **(given["12"]["inputs"] | {"settings": [settings, 0]}))
        crop = graph.add("ImageCrop", image=[faces, 0], width=96, height=96, x=0, y=0)
        cells.append(Cell(graph.show(crop), f"strength {strength:g}"))
    return Sheet(graph.nodes, cells)


def _faces() -> Sheet:
    graph = _load("Klein - Face Refine", "13", "14", "15", "16")
    shown = (("before", "10", 0), ("preview", "12", 5), ("after", "12", 0), ("mask", "12", 1))
    cells = []
    for caption, node, output in shown:
        if caption == "mask":
            node, output = graph.add("MaskToImage", mask=[node, output]), 0
        cells.append(Cell(graph.show(node, output), caption))
    return Sheet(graph.nodes, cells)


def _inpainted() -> Sheet:
    graph = _load("Klein - Inpaint", "8", "9", "10")
    shown = (("before", "3", 0), ("mask", "6", 0), ("after", "7", 0))
    cells = []
    for caption, node, output in shown:
        if caption == "mask":
            node, output = graph.add("MaskToImage", mask=[node, output]), 0
        cells.append(Cell(graph.show(node, output), caption))
    return Sheet(graph.nodes, cells, 3)


def _outpainted() -> Sheet:
    graph = _load("Klein - Outpaint", "8", "9", "10")
    grey = graph.add("ImagePadForOutpaint", image=["4", 0], left=0, top=0, right=64, bottom=0, feathering=0)
    return Sheet(graph.nodes, [Cell(graph.show(grey), "before"), Cell(graph.show("7"), "after")])


def _kept() -> Sheet:
    """The fault is made by ComfyUI's own nodes: a second subject, a tint, 3% of zoom, a shift."""
    graph = Painter()
    words = "{} on a blue background"
    original = graph.paint(graph.write(words.format("a fox next to a frog")), width=192, seed=3)
    added = graph.paint(graph.write(words.format("an apple")), seed=4)
    piece = graph.add(
        "ImageScale", image=[added, 0], upscale_method="area", width=44, height=44, crop="disabled"
    )
    placed = graph.add(
        "ImageCompositeMasked", destination=[original, 0], source=[piece, 0], x=74, y=8, resize_source=False
    )
    warm = graph.add("EmptyImage", width=192, height=128, batch_size=1, color=0xFFB060)
    tinted = graph.add(
        "ImageBlend", image1=[placed, 0], image2=[warm, 0], blend_factor=0.12, blend_mode="normal"
    )
    zoomed = graph.add(
        "ImageScale", image=[tinted, 0], upscale_method="bicubic", width=198, height=132, crop="disabled"
    )
    edited = graph.add("ImageCrop", image=[zoomed, 0], width=192, height=128, x=1, y=3)
    kept = graph.add("KleinodKeep", original=[original, 0], edited=[edited, 0])
    return Sheet(graph.nodes, [Cell(graph.show(kept, 2))])


def _remote_batch() -> Sheet:
    graph = Graph()
    prompt = "a fox on a blue background"
    job = graph.add("KleinodRunware", positive_prompt=prompt, width=512, height=512, seed=7, number_results=4)
    shown, seeds = graph.show(job), graph.read(job, 1)

    def name_seed(index: int) -> Caption:
        return lambda outputs: f"seed {outputs[seeds]['text'][index]}"

    return Sheet(graph.nodes, [Cell(shown, name_seed(index), index) for index in range(4)])


def _compared() -> Sheet:
    graph = _load("Klein - Compare Acceleration", "5", "6", "7")
    graph.nodes["3"]["inputs"] |= {"acceleration": "high", "guidance_interval": 1}
    graph.nodes["4"]["inputs"] |= {"presets": False, "fewer_steps": False, "kleinod_fast": False}
    return Sheet(graph.nodes, [Cell(graph.show("4"))])


def _chart() -> Sheet:
    return Sheet(load_prompt(API_FOLDER / "Klein - Accelerated.json"), [Cell("8")])


def _loader() -> Photograph:
    graph = Graph()
    loader = graph.add("KleinodLoader")
    return Photograph(graph.nodes, {loader: 160, graph.read(loader, 3): 275})


def _between() -> Photograph:
    graph = Painter()
    prompt = graph.write("a lion on a blue background")
    faster = graph.add("KleinodApplyAcceleration", model=graph.model)
    sampler, picture = graph.paint_with_core(prompt, [faster, 0])
    graph.show(picture)
    return Photograph(graph.nodes, {faster: 60, sampler: 260})


def _calibrated() -> Photograph:
    graph = Painter()
    prompt = graph.write("a lion on a blue background")
    node = graph.add(
        "KleinodCalibrate", model=graph.model, positive=[prompt, 0], negative=[prompt, 1],
        vae=[graph.loader, 2], width=128, height=128, name="klein-nano", clip=[graph.loader, 1],
    )  # fmt: skip
    return Photograph(graph.nodes, {node: 60})


def _options() -> Photograph:
    graph = Graph()
    options = graph.add("KleinodRunwareOptions", price_check="only show the price")
    job = graph.add(
        "KleinodRunware", positive_prompt="a fox on a blue background", width=512, height=512,
        options=[options, 0], seed=8,
    )  # fmt: skip
    return Photograph(graph.nodes, {options: 60, graph.read(job, 2): 110}, advanced=True)


def _bfl() -> Photograph:
    graph = Graph()
    job = graph.add("KleinodBFL", prompt="a panda on a pink background", width=512, height=512, seed=7)
    return Photograph(graph.nodes, {job: 60, graph.show(job): 240}, width=400)


def _recovered() -> Photograph:
    graph = Graph()
    job = graph.add("KleinodRecoverJob")
    return Photograph(graph.nodes, {job: 60, graph.show(job): 400}, width=430)


# File in js/docs -> what is laid out in rows with captions.
SHEETS: dict[str, Callable[[], Sheet]] = {
    "KleinodPrompt.jpg": _prompts,
    "KleinodSampler.jpg": _strength,
    "KleinodReferences.jpg": _edit,
    "KleinodReferences-weights.jpg": _weighed,
    "KleinodLoraStack.jpg": _loras,
    "KleinodAcceleration.jpg": _levels,
    "KleinodFast.jpg": _fast,
    "KleinodFaceSettings.jpg": _strengths,
    "KleinodFaceRefiner.jpg": _faces,
    "KleinodInpaint.jpg": _inpainted,
    "KleinodOutpaint.jpg": _outpainted,
    "KleinodRunware.jpg": _remote_batch,
}
# What a node draws itself; one picture, as it is.
DRAWINGS: dict[str, Callable[[], Sheet]] = {
    "acceleration_chart.png": _chart,
    "KleinodCompare.jpg": _compared,
    "KleinodKeep.jpg": _kept,
}
# Nodes on ComfyUI's page, in this order: the last fetches what the one before it paid.
PHOTOGRAPHS: dict[str, Callable[[], Photograph]] = {
    "KleinodLoader.png": _loader,
    "KleinodApplyAcceleration.png": _between,
    "KleinodCalibrate.png": _calibrated,
    "KleinodRunwareOptions.png": _options,
    "KleinodBFL.png": _bfl,
    "KleinodRecoverJob.png": _recovered,
}
