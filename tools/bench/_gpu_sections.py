"""What `run.py bench gpu` measures, in a process of its own for each way of keeping weights.

`python -m tools.bench._gpu_sections DEVICE MEMORY SECONDS FILE SECTION...`: every part stands under its own
try, and none is begun when the time is over; each row is appended to FILE as soon as it is known, so that
nothing is lost where the process ends early.
"""

from __future__ import annotations

import functools
import json
import math
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

if __name__ == "__main__" and "tools" not in sys.modules:
    alias = ModuleType("tools")
    alias.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["tools"] = alias

from tools.bench.report import Row, row_of_samples
from tools.launch.environment import ROOT
from tools.launch.pack import enable_comfyui, load_pack

DOUBLES, SINGLES, TEXT = 5, 20, 512
LIKE = ">= 40"  # dB: the same picture, but for the order in which numbers were added
PROMPT = "a red apple on a blue background"


class Lab:
    """Where a section writes, what it may use, and how long."""

    def __init__(self, file: Path, gpu: bool, memory: str) -> None:
        self.file, self.gpu, self.memory = file, gpu, memory
        self.section = ""
        self.deadline = 0.0

    @property
    def width(self) -> int:
        return 3072 if self.gpu else 128

    @property
    def side(self) -> int:
        """Of the picture, in latent cells."""
        return 64 if self.gpu else 8

    def write(self, **entry: Any) -> None:
        with self.file.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"section": self.section, "memory": self.memory, **entry}) + "\n")

    def row(self, name: str, value: float, unit: str = "", goal: str | None = None) -> None:
        self.keep(Row(name, value, unit, None, 1, goal))

    def keep(self, row: Row) -> None:
        print(f"  {row.name}: {row.value:.4g} {row.unit}", flush=True)
        self.write(row=row.as_json())

    @contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """What goes wrong in a part is written down, and the next one is tried."""
        try:
            yield
        except _OutOfTime:
            self.write(skipped=what)
        except Exception as error:
            traceback.print_exc()
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            self.write(failed=what, why=f"{type(error).__name__}: {str(error)[:300]} ({where})")

    def begin(self) -> None:
        """First line of a part: it is left out where the time is over."""
        if time.monotonic() > self.deadline:
            raise _OutOfTime


class _OutOfTime(Exception):
    pass


def psnr(one: Any, other: Any) -> float:
    """Of two IMAGEs, dB; 100 where every bit agrees."""
    error = float(((one.float() - other.float()) ** 2).mean())
    return min(100.0, -10 * math.log10(error)) if error > 0 else 100.0


def wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def clock(work: Callable[[], Any]) -> tuple[float, Any]:
    wait()
    started = time.perf_counter()
    result = work()
    wait()
    return time.perf_counter() - started, result


class Nano:
    """klein-nano, and the nodes as a graph would call them."""

    def __init__(self) -> None:
        from kleinod.nodes.model.nodes import KleinodLoader, KleinodPrompt

        self.model, self.clip, self.vae, self.info = KleinodLoader.execute(
            "klein-nano (built in)", "default", "automatic", "default", "automatic", "auto"
        ).args
        self.positive, self.negative = KleinodPrompt.execute(self.clip, PROMPT, "").args[:2]

    def sample(self, model: Any = None, settings: Any = None, **changes: Any) -> Any:
        from kleinod.nodes.sampling.nodes import KleinodSampler

        inputs = {
            "model": self.model if model is None else model,
            "positive": self.positive, "negative": self.negative,
            "vae": self.vae, "width": 128, "height": 128, "steps": 28, "guidance": 4.0, "seed": 5,
            "scheduler": "Default", "results": 1, "acceleration_settings": settings,
        }  # fmt: skip
        return KleinodSampler.execute(**{**inputs, **changes}).args

    def by_core(self) -> Any:
        """The same picture from ComfyUI's own nodes."""
        from comfy_extras import nodes_custom_sampler as core
        from comfy_extras.nodes_flux import EmptyFlux2LatentImage, Flux2Scheduler

        from nodes import VAEDecode

        guider = core.CFGGuider.execute(self.model, self.positive, self.negative, 4.0)[0]
        sigmas = Flux2Scheduler.execute(28, 128, 128)[0]
        latent = EmptyFlux2LatentImage.execute(128, 128)[0]
        solver = core.KSamplerSelect.execute("euler")[0]
        noise = core.RandomNoise.execute(5)[0]
        out = core.SamplerCustomAdvanced.execute(noise, guider, solver, sigmas, latent)[0]
        return VAEDecode().decode(self.vae, out)[0]

    def stack(self, rows: str, apply: str = "into the weights") -> tuple[Any, str]:
        from kleinod.nodes.loras.nodes import KleinodLoraStack

        made = KleinodLoraStack.execute(model=self.model, rows=rows, apply=apply).args
        return made[0], made[-1]


STYLE = "klein-nano style.safetensors"


def pictures(lab: Lab) -> None:
    """Does everything work on this device, and is what ought to be the same the same?"""
    import comfy.model_management
    import torch
    from kleinod.nodes.base.values import ACCELERATION_LEVELS, Acceleration

    started = time.perf_counter()
    nano = Nano()
    lab.row("klein-nano loaded and a prompt read", time.perf_counter() - started, "s")
    plain = nano.sample()[0]
    with lab.trying("Klein Sampler equals ComfyUI's own graph"):
        lab.begin()
        difference = float((nano.by_core() - plain).abs().max())
        lab.row("Klein Sampler against ComfyUI's own graph, largest difference", difference, "", "== 0")
    with lab.trying("the same picture after the models were unloaded"):
        lab.begin()
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()
        difference = float((nano.sample()[0] - plain).abs().max())
        lab.row("the same seed after unloading all models, largest difference", difference, "", "== 0")
    levels = {
        **{f"acceleration {level}": Acceleration(level) for level in ACCELERATION_LEVELS if level != "none"},
        "forecast at speed 4": Acceleration(speed=4.0),
        "first block": Acceleration("none", fb_cache=True),
        "dual block": Acceleration("none", db_cache=True),
        "tea": Acceleration("none", tea_cache=True),
        "guidance every second step": Acceleration("none", guidance_interval=2),
    }
    for name, settings in levels.items():
        with lab.trying(name):
            lab.begin()
            made = nano.sample(settings=settings)
            lab.row(f"{name}: likeness to the picture without", psnr(made[0], plain), "dB")
            runs = json.loads(made[3])["runs"]
            works = [step["work"] for step in runs[0]["records"]] if runs else [1.0]
            lab.row(f"{name}: work done", 100 * statistics.fmean(works), "%")
    with lab.trying("LoRAs"):
        lab.begin()
        into = nano.sample(nano.stack(f"{STYLE} 0.9")[0])[0]
        beside = nano.sample(nano.stack(f"{STYLE} 0.9", "beside the weights")[0])[0]
        again = nano.sample()[0]
        lab.row("LoRA: how far the style moves the picture", psnr(into, plain), "dB", "<= 30")
        lab.row("LoRA beside the layers against in the weights", psnr(beside, into), "dB", LIKE)
        difference = float((again - plain).abs().max())
        lab.row("the model without it afterwards, largest difference", difference, "", "== 0")
    with lab.trying("a LoRA in one stage"):
        lab.begin()
        high, low = (nano.sample(nano.stack(f"{STYLE} 0.9 {stage}")[0])[0] for stage in ("high", "low"))
        lab.row("LoRA in the early stage alone against none", psnr(high, plain), "dB", "<= 45")
        lab.row("LoRA in the late stage alone against the early one", psnr(low, high), "dB", "<= 45")
    with lab.trying("a LoRA as ComfyUI's own node applies it"):
        lab.begin()
        import comfy.sd
        import comfy.utils
        from kleinod.nodes.loras.bundled import BUILT_IN

        state = comfy.utils.load_torch_file(str(BUILT_IN / STYLE), safe_load=True)
        theirs = comfy.sd.load_lora_for_models(nano.model, None, state, 0.9, 0.0)[0]
        by_core = nano.sample(theirs)[0]
        lab.row("LoRA in the weights against ComfyUI's own loader", psnr(by_core, into), "dB", LIKE)
    references(lab, nano, plain)
    with lab.trying("Klein Face Refiner"):
        lab.begin()
        from kleinod.nodes.faces.nodes import KleinodFaceRefiner

        mask = torch.zeros(1, 128, 128)
        mask[:, 40:88, 40:88] = 1
        made = KleinodFaceRefiner.execute(
            plain, nano.model, nano.clip, nano.vae, "none", 3, "left to right", 0, 0, 0, mask=mask
        ).args  # fmt: skip
        refined, where = made[0], made[1] > 0
        outside = float(((refined - plain).abs().amax(-1))[~where].max())
        lab.row("faces: largest change outside the mask", outside, "", "== 0")
        lab.row("faces: largest change inside", float((refined - plain).abs().max()), "", "> 0.01")
    edits(lab, nano, plain)
    core_graph(lab, nano)
    with lab.trying("Klein Calibrate"), tempfile.TemporaryDirectory() as folder:
        lab.begin()
        import folder_paths
        from kleinod.nodes.acceleration.nodes import KleinodAcceleration
        from kleinod.nodes.study.nodes import KleinodCalibrate

        before = folder_paths.get_user_directory()
        folder_paths.set_user_directory(folder)
        try:
            asked = (nano.model, nano.positive, nano.negative, nano.vae, 128, 128, 8, 4.0, 7, 2, "bench")
            lab.row("Klein Calibrate, two prompts", clock(lambda: KleinodCalibrate.execute(*asked))[0], "s")
            fitted = KleinodAcceleration.execute("medium", "bench").args[0]
            likeness = psnr(nano.sample(settings=fitted)[0], plain)
            lab.row("acceleration medium with its table: likeness to the picture without", likeness, "dB")
        finally:
            folder_paths.set_user_directory(before)
    with lab.trying("Klein Compare"):
        lab.begin()
        from kleinod.nodes.study.nodes import KleinodCompare

        seconds, made = clock(
            lambda: (
                KleinodCompare.execute(
                    nano.model, nano.positive, nano.negative, nano.vae, 128, 128, 16, 4.0, 3
                ).args
            )
        )
        print(made[1], flush=True)
        lab.row("Klein Compare, all its candidates", seconds, "s")


def with_defaults(node: Any, **given: Any) -> Any:
    """What a node gives as it lies on the canvas: its widgets untouched but for `given`."""
    kinds = node.INPUT_TYPES()
    inputs = {}
    for name, (kind, options) in {**kinds.get("required", {}), **kinds.get("optional", {})}.items():
        if "default" in options:
            inputs[name] = options["default"]
        elif "options" in options or isinstance(kind, list):
            inputs[name] = (options.get("options") or kind)[0]
    return node.execute(**{**inputs, **given}).args


def edits(lab: Lab, nano: Nano, plain: Any) -> None:
    """The three nodes that change a part and keep the rest."""
    import torch
    from kleinod.nodes.edits.nodes import KleinodInpaint, KleinodKeep, KleinodOutpaint

    parts = {"model": nano.model, "clip": nano.clip, "vae": nano.vae, "seed": 3}
    with lab.trying("Klein Inpaint"):
        lab.begin()
        mask = torch.zeros(1, 128, 128)
        mask[:, 40:88, 40:88] = 1
        made = with_defaults(KleinodInpaint, image=plain, mask=mask, prompt="a frog", **parts)
        painted, where = made[0], made[1] > 0
        outside = float(((painted - plain).abs().amax(-1))[~where].max())
        lab.row("Klein Inpaint: largest change outside the mask", outside, "", "== 0")
        lab.row("Klein Inpaint: largest change inside", float((painted - plain).abs().max()), "", "> 0.01")
        kept = with_defaults(KleinodKeep, original=plain, edited=painted)
        outside = float(((kept[0] - plain).abs().amax(-1))[kept[1] == 0].max())
        lab.row("Klein Keep: largest change outside its mask", outside, "", "== 0")
    with lab.trying("Klein Outpaint"):
        lab.begin()
        made = with_defaults(
            KleinodOutpaint, image=plain, prompt=PROMPT, extend="pixels a side", left=0, top=0, right=64,
            bottom=0, overlap=0, **parts,
        )  # fmt: skip
        lab.row("Klein Outpaint: width of the grown picture", made[0].shape[2], "px", "== 192")
        change = float((made[0][:, :, :128] - plain).abs().max())
        lab.row("Klein Outpaint: largest change of the old picture", change, "", "== 0")


def core_graph(lab: Lab, nano: Nano) -> None:
    """Acceleration and Kleinod Fast in ComfyUI's own sampler nodes."""
    with lab.trying("Klein Apply Acceleration, Fast Steps and Report in core nodes"):
        lab.begin()
        from comfy_extras import nodes_custom_sampler as core
        from comfy_extras.nodes_flux import EmptyFlux2LatentImage
        from kleinod.nodes.acceleration.nodes import KleinodAccelerationReport, KleinodApplyAcceleration
        from kleinod.nodes.sampling.fast_nodes import KleinodFast

        model = KleinodApplyAcceleration.execute(nano.model, "medium").args[0]
        solver, sigmas = KleinodFast.execute(14, 128, 128).args
        guider = core.CFGGuider.execute(model, nano.positive, nano.negative, 4.0)[0]
        latent = EmptyFlux2LatentImage.execute(128, 128)[0]
        noise = core.RandomNoise.execute(5)[0]
        out = core.SamplerCustomAdvanced.execute(noise, guider, solver, sigmas, latent)[0]
        data = json.loads(KleinodAccelerationReport.execute(model, out).args[2])
        lab.row("runs that Klein Acceleration Report tells of", len(data["runs"]), "", "== 1")


def references(lab: Lab, nano: Nano, plain: Any) -> None:
    from kleinod.nodes.base.values import Acceleration
    from kleinod.nodes.model.nodes import KleinodPrompt
    from kleinod.nodes.references.nodes import KleinodReferences

    with lab.trying("references"):
        lab.begin()
        value = KleinodReferences.execute(
            {"image_1": plain}, ["native"], [1.0], [1], ["white"], ["hide the rest"]
        ).args[0]  # fmt: skip
        steering = KleinodPrompt.execute(nano.clip, "on a green background", "", value, nano.vae).args
        positive, negative = steering[:2]
        inputs = {"positive": positive, "negative": negative}
        edited = nano.sample(**inputs)[0]
        lab.row("an edit against its original", psnr(edited, plain), "dB", "<= 40")
        for mode in ("refresh", "exact (9B-KV)"):
            made = nano.sample(settings=Acceleration("none", reference_cache=mode), **inputs)[0]
            lab.row(f"reference_cache {mode}: likeness to the edit without", psnr(made, edited), "dB")


def draw_state(lab: Lab) -> dict[str, Any]:
    """Weights of the 4B's shapes, drawn on the device and kept in the computer's memory."""
    import torch

    from tools.bench.loras import shapes_of

    torch.manual_seed(0)
    device = "cuda" if lab.gpu else "cpu"
    dtype = torch.bfloat16 if lab.gpu else torch.float32
    state = {}
    for key, shape in shapes_of(lab.width, DOUBLES, SINGLES).items():
        if key == "txt_in.weight":
            shape = (shape[0], lab.width * 5 // 2)
        if key.endswith("scale"):
            state[key] = torch.ones(shape, dtype=dtype)
        else:
            drawn = torch.empty(shape, dtype=dtype, device=device).normal_(std=shape[-1] ** -0.5)
            state[key] = drawn.cpu()
    return state


def load(lab: Lab, state: dict[str, Any], **options: Any) -> Any:
    import comfy.sd

    return comfy.sd.load_diffusion_model_state_dict(dict(state), model_options=options)


def make_bench(lab: Lab, model: Any, repeats: int) -> Any:
    from tools.bench.overhead import Bench

    return Bench(model, lab.side, repeats, lab.width * 5 // 2)


def matrix_speed(dtype: Any) -> float:
    """Operations a second that this device reaches in large matrix products."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    seconds, _ = clock(lambda: [a @ b for _ in range(10)])
    return 10 * 2 * side**3 / seconds


def work_of_a_step(width: int, tokens: int) -> float:
    """Operations of a guided step: 13 H^2 weights act on every token, in double blocks as in single ones;
    attention adds 4 n^2 H a block.
    """
    return 2 * (DOUBLES + SINGLES) * (2 * 13 * width**2 * tokens + 4 * tokens**2 * width)


def used_memory() -> float:
    """GiB of the device that are taken, by whomever."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**30


def steps(lab: Lab) -> None:
    """What a step costs, against the device's own speed, and what skipping and deciding cost."""
    import torch

    started = time.perf_counter()
    state = draw_state(lab)
    lab.row("random weights drawn", time.perf_counter() - started, "s")
    model = load(lab, state)
    dtype = torch.bfloat16 if lab.gpu else torch.float32
    bench = make_bench(lab, model, 1)
    with lab.trying("a step"):
        lab.begin()
        uncached, peak = bench.clock(model)
        bench.step = statistics.median(uncached)
        lab.keep(row_of_samples("a guided step, nothing skipped", uncached, "s"))
        speed = matrix_speed(dtype)
        lab.row("matrix products of this device", speed / 1e12, "TFLOP/s")
        tokens = bench.tokens
        lab.row("a step over its roofline", bench.step / (work_of_a_step(lab.width, tokens) / speed), "x")
        if peak is not None:
            lab.row("most memory, nothing skipped", peak, "GiB")
            lab.row("memory of the device in use", used_memory(), "GiB")
    for level in ("forecast", "first block", "dual block", "guidance"):
        with lab.trying(f"level {level}"):
            lab.begin()
            reports: list[Any] = []
            times, peak = bench.clock(bench.accelerated(level, reports), reports)
            kind = "half" if level == "guidance" else "skipped"
            goal = {"forecast": "<= 1", "first block": "<= 5"}.get(level)
            if times:
                shares = [100 * seconds / bench.step for seconds in times]
                lab.keep(row_of_samples(f"{level}: a {kind} step", shares, "% of a step", goal))
            else:
                lab.write(failed=f"level {level}", why="nothing was reused")
            if peak is not None:
                lab.row(f"{level}: most memory", peak, "GiB")
    with lab.trying("the gate"):
        lab.begin()
        lab.keep(bench.gate(""))
    loras_at_size(lab, model, state)
    fp8(lab, state)


COUNT = 5


def loras_at_size(lab: Lab, model: Any, state: dict[str, Any]) -> None:
    """From a changed weight of one LoRA of five to the end of the next step."""
    import folder_paths

    from tools.bench import loras

    def one_step(patched: Any) -> float:
        """Seconds of a run of one step: putting the weights in place, and the step."""
        import comfy.samplers
        import torch

        bench = make_bench(lab, model, 1)
        guider = comfy.samplers.CFGGuider(patched)
        guider.set_conds(*bench.texts)
        guider.set_cfg(4.0)
        sigmas = torch.tensor([0.5, 0.499])
        solver = comfy.samplers.sampler_object("euler")
        empty = torch.zeros_like(bench.noise)
        run = functools.partial(guider.sample, bench.noise, empty, solver, sigmas)
        return clock(lambda: run(disable_pbar=True, seed=1))[0]

    with lab.trying("five LoRAs of rank 64"), tempfile.TemporaryDirectory() as place:
        lab.begin()
        folder = Path(place)
        _, endings = folder_paths.folder_names_and_paths["loras"]
        folder_paths.folder_names_and_paths["loras"] = ([str(folder)], endings)
        folder_paths.filename_list_cache.clear()
        for number in range(COUNT):
            loras.write_lora(folder / f"{number}.safetensors", state, number)
        one_step(model)
        bare = min(one_step(model) for _ in range(2))
        lab.row("a run of one step without LoRAs", bare, "s")
        sides = {
            "in the weights": loras.Stack(model, "into the weights"),
            "beside the layers": loras.Stack(model, "beside the weights"),
            "five loaders of ComfyUI": loras.CoreChain(model),
        }
        for name, side in sides.items():
            with lab.trying(f"LoRAs {name}"):
                lab.begin()
                weights = [0.8, 0.6, 0.9, 0.7, 0.5]
                cold, _ = clock(lambda side=side, weights=weights: one_step(side.apply(tuple(weights))))
                lab.row(f"LoRAs {name}: first run of one step", cold, "s")
                times = []
                for repeat in range(2):
                    weights[2] += 0.1 + repeat / 100
                    times.append(
                        clock(lambda side=side, weights=weights: one_step(side.apply(tuple(weights))))[0]
                    )
                lab.row(f"LoRAs {name}: one weight changed, until the next step ends", min(times), "s")
                lab.row(f"LoRAs {name}: the step after", one_step(side.apply(tuple(weights))), "s")
                one_step(model)


def fp8(lab: Lab, state: dict[str, Any]) -> None:
    import comfy.model_management
    import torch

    for name, options in (
        ("fp8_e4m3fn", {"dtype": torch.float8_e4m3fn}),
        ("fp8_e4m3fn_fast", {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True}),
    ):
        with lab.trying(name):
            lab.begin()
            comfy.model_management.unload_all_models()
            model = load(lab, state, **options)
            bench = make_bench(lab, model, 1)
            uncached, peak = bench.clock(model)
            lab.keep(row_of_samples(f"{name}: a guided step", uncached, "s"))
            if peak is not None:
                lab.row(f"{name}: most memory", peak, "GiB")
            bench.step = statistics.median(uncached)
            reports: list[Any] = []
            times, _ = bench.clock(bench.accelerated("first block", reports), reports)
            if times:
                shares = [100 * seconds / bench.step for seconds in times]
                lab.keep(row_of_samples(f"{name}: first block, a skipped step", shares, "% of a step"))


def compiled(lab: Lab) -> None:
    """The same with every block compiled for itself, as ComfyUI's own node for it does."""
    from tools.bench.overhead import _compiled

    state = draw_state(lab)
    model = load(lab, state)
    with lab.trying("compiled blocks"):
        lab.begin()
        quick = _compiled(model)
        bench = make_bench(lab, quick, 1)
        seconds, _ = clock(lambda: bench.sample(quick))
        lab.row("compiling and a run", seconds, "s")
        uncached, _ = bench.clock(quick)
        bench.step = statistics.median(uncached)
        lab.keep(row_of_samples("compiled: a guided step", uncached, "s"))
        for level in ("forecast", "first block"):
            reports: list[Any] = []
            times, _ = bench.clock(bench.accelerated(level, reports), reports)
            if times:
                shares = [100 * one / bench.step for one in times]
                lab.keep(row_of_samples(f"compiled: {level}: a skipped step", shares, "% of a step"))


SECTIONS = {"pictures": pictures, "steps": steps, "compiled": compiled}


def enable(comfyui: Path, gpu: bool, memory: str) -> None:
    """ComfyUI as its main.py would set it up; memory: "dynamic" is its default on NVIDIA cards."""
    if not gpu:
        enable_comfyui(comfyui, ("--cpu",))
        return
    if memory == "whole":
        enable_comfyui(comfyui, ("--disable-dynamic-vram",))
        return
    import comfy_aimdo.control

    comfy_aimdo.control.init()
    enable_comfyui(comfyui, ())
    import comfy.memory_management
    import comfy.model_management
    import comfy.model_patcher

    devices = comfy.model_management.get_all_torch_devices()
    try:
        ready = comfy_aimdo.control.init_devices((device.index, 0) for device in devices)
    except TypeError:
        ready = comfy_aimdo.control.init_devices(device.index for device in devices)
    if not ready:
        raise RuntimeError("comfy-aimdo does not work here, so ComfyUI would keep weights whole as well")
    comfy_aimdo.control.set_log_critical()
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    comfy.memory_management.aimdo_enabled = True


def main(arguments: list[str]) -> int:
    device, memory, seconds, file, *wanted = arguments
    lab = Lab(Path(file), device == "gpu", memory)
    lab.section = "start"
    lab.deadline = time.monotonic() + float(seconds)
    started = time.monotonic()
    try:
        enable(Path(os.environ["COMFYUI_PATH"]), lab.gpu, memory)
        import torch

        load_pack(ROOT)
    except Exception as error:
        traceback.print_exc()
        lab.write(failed="starting ComfyUI", why=f"{type(error).__name__}: {error}"[:300])
        return 1
    lab.row("ComfyUI and the pack imported", time.monotonic() - started, "s")
    for name in wanted:
        lab.section = name
        lab.write(begins=True)
        print(f"{name}, weights {memory}:", flush=True)
        began = time.monotonic()
        with lab.trying(name), torch.inference_mode():
            lab.begin()
            SECTIONS[name](lab)
        lab.write(ends=True, seconds=round(time.monotonic() - began, 1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
