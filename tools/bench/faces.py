"""`run.py bench faces`: small damaged faces before and after Klein Face Refiner, on klein-nano.

Scenes of several small faces (`tools/nano/faces.py`) are blurred and noised in the faces, then found by the
built-in detector and refined. The judge of `tools/nano`, which knows the drawings and never saw a generated
picture, says whom it still recognises. The baseline is a face detailer as most packs have one: crop, resample
in 8 bits, sample without reference, paste through a blurred rectangle, one face after the other.
Every number here is klein-nano's and says nothing about the real weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tools.bench.nano import Painter
from tools.bench.report import Row, row_of_samples
from tools.nano import faces as small
from tools.nano import world
from tools.nano.judge import VIEW, Judge

WIDTH, HEIGHT = 384, 256
PADDING = 20  # percent of the face
CONTEXT = 1.52  # as much as a picture of klein-nano's world leaves around its subject
STEPS = 20


@dataclass(frozen=True)
class Scene:
    """clean, damaged: float32 `[H, W, 3]`. found: boxes of the detector, left to right; `who` of each is the
    index of the drawn face it covers, None for none."""

    clean: np.ndarray
    damaged: np.ndarray
    drawn: list[small.Drawn]
    colour: int
    found: list[dict[str, Any]]
    who: list[int | None]

    @property
    def names(self) -> list[str]:
        """What an artist writes who looks at the numbered preview."""
        ground = world.COLOURS[self.colour]
        return [
            "[SKIP]" if i is None else f"{world.with_article(self.drawn[i].name)} on a {ground} background"
            for i in self.who
        ]

    @property
    def nobody(self) -> list[str]:
        ground = world.COLOURS[self.colour]
        return ["[SKIP]" if i is None else f"on a {ground} background" for i in self.who]


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        self.painter = Painter()
        self.judge = Judge()
        self.options = options
        from kleinod.nodes.base.values import MASK_PERCENT, FaceRefinement
        from kleinod.nodes.faces import engine, nodes
        from kleinod.nodes.faces.detectors import NANO_FACES

        self.engine, self.node, self.detector = engine, nodes.KleinodFaceRefiner, NANO_FACES
        self.settings = FaceRefinement(
            confidence=0.2,
            mask_padding=PADDING,
            mask_blur=10,
            mask_unit=MASK_PERCENT,
            strength=options.strength,
            steps=STEPS,
            guidance=4.0,
            inpaint_size=128,
            context=CONTEXT,
        )

    def refine(self, scene: Scene | np.ndarray, prompts: list[str], limit: int = 16, **change: Any) -> Any:
        torch, painter = self.painter.torch, self.painter
        damaged = scene.damaged if isinstance(scene, Scene) else scene
        with torch.inference_mode():
            return self.node.execute(
                torch.from_numpy(damaged)[None],
                painter.model,
                painter.clip,
                painter.vae,
                self.detector,
                11,
                "left to right",
                0,
                0,
                0,
                settings=replace(self.settings, **change),
                face_prompts="\n".join(prompts),
                batch_limit=limit,
            ).args

    def draw_scene(self, number: int) -> Scene:
        rng = np.random.default_rng(7000 + number)
        colour = int(rng.integers(len(world.COLOURS)))
        clean, drawn, _ = small.draw_scene(
            rng, WIDTH, HEIGHT, self.options.faces, 2, (32, 64), colour=colour, gap=20
        )
        boxes = [face.box for face in drawn]
        damaged = small.damage(clean, boxes, rng, self.options.blur, self.options.noise)
        inside = Image.new("L", (WIDTH, HEIGHT))
        pen = ImageDraw.Draw(inside)
        for x0, y0, x1, y1 in boxes:
            pen.ellipse((x0 - 3, y0 - 3, x1 + 2, y1 + 2), fill=255)
        share = np.asarray(inside.filter(ImageFilter.GaussianBlur(1)), np.float32)[..., None] / 255
        damaged = np.ascontiguousarray(clean + share * (damaged - clean), dtype=np.float32)
        found = self.refine(damaged, [], strength=0.0)[2][0]
        return Scene(clean, damaged, drawn, colour, found, [whose(box, drawn) for box in found])

    def recognised(self, scene: Scene, picture: np.ndarray) -> list[bool]:
        return [self.judge.subjects(view(picture, face.box), 1) == [face.subject] for face in scene.drawn]

    def detail(self, scene: Scene, prompts: list[str], strength: float | None) -> np.ndarray:
        """The baseline. strength: the noise level to start from; None is a KSampler's denoise of 0.5."""
        torch = self.painter.torch
        picture = scene.damaged.copy()
        for i, (box, prompt) in enumerate(zip(scene.found, prompts, strict=True)):
            if prompt == "[SKIP]":
                continue
            x, y, w, h = box["x"], box["y"], box["width"], box["height"]
            wide, high = min(round(w * CONTEXT), WIDTH), min(round(h * CONTEXT), HEIGHT)
            left = min(max(x + w // 2 - wide // 2, 0), WIDTH - wide)
            top = min(max(y + h // 2 - high // 2, 0), HEIGHT - high)
            scale = 128 / max(wide, high)
            size = round(wide * scale), round(high * scale)
            crop = Image.fromarray(to_bytes(picture[top : top + high, left : left + wide]))
            enlarged = np.asarray(crop.resize(size, Image.LANCZOS), np.float32) / 255
            with torch.inference_mode():
                painted = self.sample_plain(torch.from_numpy(enlarged)[None], prompt, 11 + i, strength)
            back = Image.fromarray(to_bytes(painted)).resize((wide, high), Image.LANCZOS)
            mask = Image.new("L", (wide, high))
            grow = PADDING * max(w, h) // 100
            ImageDraw.Draw(mask).rectangle(
                (x - left - grow, y - top - grow, x - left + w + grow, y - top + h + grow), fill=255
            )
            soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(5)), np.float32)[..., None] / 255
            region = picture[top : top + high, left : left + wide]
            region += soft * (np.asarray(back, np.float32) / 255 - region)
        return picture

    def sample_plain(self, pixels: Any, prompt: str, seed: int, strength: float | None) -> np.ndarray:
        import comfy.samplers
        from kleinod.nodes.sampling.schedule import build_schedule

        painter = self.painter
        positive, negative = painter.prompt.execute(painter.clip, prompt, "").args[:2]
        latent = painter.vae.encode(pixels)
        guider = comfy.samplers.CFGGuider(painter.model)
        guider.set_conds(positive, negative)
        guider.set_cfg(4.0)
        if strength is None:
            sampling = painter.model.get_model_object("model_sampling")
            sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", int(STEPS / 0.5))[-STEPS - 1 :]
        else:
            tokens = latent.shape[2] * latent.shape[3]
            sigmas = build_schedule("native", STEPS, tokens, strength=strength).sigmas
        noise = painter.torch.randn(latent.shape, generator=painter.torch.Generator().manual_seed(seed))
        sampler = comfy.samplers.sampler_object("euler")
        result = guider.sample(noise, latent, sampler, sigmas, disable_pbar=True, seed=seed)
        return painter.vae.decode(result)[0].numpy()


def whose(box: dict[str, Any], drawn: list[small.Drawn]) -> int | None:
    """The drawn face that shares most with a found box, if at least half of their union."""
    mine = (box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"])
    shares = [share_of(mine, face.box) for face in drawn]
    best = int(np.argmax(shares))
    return best if shares[best] >= 0.5 else None


def share_of(a: tuple, b: tuple) -> float:
    """Intersection over union."""
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, across) * max(0.0, down)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def view(picture: np.ndarray, box: small.Box) -> np.ndarray:
    """A face as the judge wants to see one: uint8 `[96, 96, 3]`, as if it were 84 pixels wide."""
    side = max(box[2] - box[0], box[3] - box[1]) * VIEW / world.SUBJECT
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    around = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    whole = Image.fromarray(np.pad(to_bytes(picture), ((64, 64), (64, 64), (0, 0)), "edge"))
    shifted = tuple(edge + 64 for edge in around)
    return np.asarray(whole.resize((VIEW, VIEW), Image.BICUBIC, box=shifted))


def to_bytes(picture: np.ndarray) -> np.ndarray:
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def psnr(scene: Scene, picture: np.ndarray) -> list[float]:
    """dB against the undamaged picture, face by face within its box."""
    values = []
    for face in scene.drawn:
        x0, y0, x1, y1 = (round(edge) for edge in face.box)
        error = np.square(np.clip(picture, 0, 1)[y0:y1, x0:x1] - scene.clean[y0:y1, x0:x1]).mean()
        values.append(10 * np.log10(1 / max(float(error), 1e-10)))
    return values


def changed_beyond(scene: Scene, picture: np.ndarray) -> int:
    """Pixels that differ in any bit although they lie beyond the padding of every face found."""
    beyond = np.ones(picture.shape[:2], bool)
    for box in scene.found:
        grow = int(np.ceil(PADDING / 100 * max(box["width"], box["height"]))) + 1
        rows = slice(max(0, box["y"] - grow), box["y"] + box["height"] + grow)
        columns = slice(max(0, box["x"] - grow), box["x"] + box["width"] + grow)
        beyond[rows, columns] = False
    return int((beyond & (picture != scene.damaged).any(-1)).sum())


def run(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="run.py bench faces")
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--faces", type=int, default=5, help="faces in a scene")
    parser.add_argument("--strength", type=float, default=0.8)
    parser.add_argument("--blur", type=float, default=0.12, help="radius, as a share of the face")
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=5, help="of the timing")
    parser.add_argument("--sheet", type=Path, help="write damaged, refined, baseline, preview to this file")
    bench = Bench(parser.parse_args(argv))
    options = bench.options
    counts: dict[str, list[bool]] = {}
    fidelity: dict[str, list[float]] = {}
    outside = {"refiner": 0, "baseline": 0}
    wrong = 0
    found: list[bool] = []
    sheet = []
    for number in range(options.scenes):
        scene = bench.draw_scene(number)
        found += [i in scene.who for i in range(len(scene.drawn))]
        wrong += scene.who.count(None)
        named = bench.refine(scene, scene.names)
        refined = named[0][0].numpy()
        outside["refiner"] += int(((named[1][0].numpy() == 0) & (refined != scene.damaged).any(-1)).sum())
        outside["refiner"] += changed_beyond(scene, refined)
        results = {
            "before": scene.damaged,
            "refined, each named": refined,
            "refined, nobody named": bench.refine(scene, scene.nobody)[0][0].numpy(),
            "baseline, each named": bench.detail(scene, scene.names, None),
            "baseline, nobody named": bench.detail(scene, scene.nobody, options.strength),
        }
        outside["baseline"] += changed_beyond(scene, results["baseline, each named"])
        for name, picture in results.items():
            counts.setdefault(name, []).extend(bench.recognised(scene, picture))
            fidelity.setdefault(name, []).extend(psnr(scene, picture))
        sheet.append([scene.damaged, refined, results["baseline, each named"], named[5][0].numpy()])
        print(f"  {number + 1} of {options.scenes} scenes", flush=True)
    if options.sheet:
        rows = [np.concatenate([to_bytes(picture) for picture in row], axis=1) for row in sheet]
        options.sheet.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(options.sheet)
    before = 100 * float(np.mean(counts["before"]))
    rows = [
        Row("faces found", 100 * float(np.mean(found)), "%", n=len(found), goal=">= 90"),
        Row("false faces", wrong, "", n=options.scenes),
    ]
    for name, right in counts.items():
        goal = f"> {before}" if name == "refined, each named" else None
        rows.append(Row(f"recognised: {name}", 100 * float(np.mean(right)), "%", n=len(right), goal=goal))
    for name, values in fidelity.items():
        rows.append(row_of_samples(f"likeness to the undamaged face: {name}", values, "dB"))
    rows.append(
        Row("pixels changed outside the masks", outside["refiner"], "", n=options.scenes, goal="== 0")
    )
    rows.append(Row("the same, baseline", outside["baseline"], "", n=options.scenes))
    return rows + time_batches(bench)


def time_batches(bench: Bench) -> list[Row]:
    """One scene, its faces together and one by one, in turn; the first of each warms up."""
    scene = bench.draw_scene(900)
    seconds: dict[int, list[float]] = {16: [], 1: []}
    for repeat in range(bench.options.repeats + 1):
        for limit, samples in seconds.items():
            started = time.perf_counter()
            bench.refine(scene, scene.names, limit, steps=8)
            if repeat:
                samples.append(time.perf_counter() - started)
    ratios = [one / all_ for one, all_ in zip(seconds[1], seconds[16], strict=True)]
    name = f"one by one / batched, {len(scene.found)} faces"
    return [
        row_of_samples("batched, 8 steps", seconds[16], "s"),
        row_of_samples("one by one, 8 steps", seconds[1], "s"),
        row_of_samples(f"time: {name} (median {statistics.median(ratios):.2f})", ratios, "x"),
    ]
