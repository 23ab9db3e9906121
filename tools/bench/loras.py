"""`run.py bench loras`: how long a stack of five LoRAs of rank 64 takes to come into force.

A random Klein (on a graphics card as large as memory allows, on a CPU 0.4 GB, or --gigabytes) takes five
LoRAs of every linear layer, once through a chain of five of ComfyUI's LoraLoaderModelOnly, once through Klein
LoRA Stack, each time until the weights a sampler would use are in place. "cold": nothing cached by either.
"changed": only the third LoRA's weight is another one, and everything that ComfyUI would keep is kept: the
loaders before it with their results, the loaders' files, our cache. Both sides alternate within one run, and
the patched weights of both are compared at the end. "one step" is what the side path costs per call of the
network.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.bench.report import Row, row_of_samples
from tools.launch.environment import ROOT
from tools.launch.pack import enable_comfyui, load_pack

COUNT, RANK = 5, 64
WEIGHTS = (0.8, 0.6, 0.9, 0.7, 0.5)
CHANGED = 2
CONTEXT = 7680
# The real width where the model is large enough to hold a block of it; what is timed goes by weights.
WIDTHS = (3072, 2048, 1024)
# Per byte of weights: the weights, ComfyUI's backup of them, and room for the LoRAs and what patching needs.
MEMORY_PER_BYTE = 3.0


def run(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="run.py bench loras")
    parser.add_argument(
        "--gigabytes", type=float, help="size of the model; default: as free memory allows; 0.4 on a CPU"
    )
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each kind (default 5)")
    parser.add_argument("--gpu", action="store_true", help="on the graphics card, in bfloat16")
    options = parser.parse_args(argv)
    enable_comfyui(Path(os.environ["COMFYUI_PATH"]), () if options.gpu else ("--cpu",))
    load_pack(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        return _measure(options, Path(folder))


def _measure(options: argparse.Namespace, folder: Path) -> list[Row]:
    import comfy.sd
    import folder_paths
    import torch

    torch.manual_seed(0)
    dtype = torch.bfloat16 if options.gpu else torch.float32
    share = free_gigabytes() / MEMORY_PER_BYTE
    hidden, doubles, singles = choose_size(
        options.gigabytes or (share if options.gpu else min(0.4, share)), dtype.itemsize
    )
    state = draw_model(hidden, doubles, singles, dtype)
    size = sum(weight.numel() for weight in state.values())
    _, endings = folder_paths.folder_names_and_paths["loras"]
    folder_paths.folder_names_and_paths["loras"] = ([str(folder)], endings)
    for number in range(COUNT):
        write_lora(folder / f"{number}.safetensors", state, number)
    model = comfy.sd.load_diffusion_model_state_dict(state)
    del state
    print(f"{size / 1e9:.2f} billion weights, width {hidden}, blocks {doubles} + {singles}, {dtype}")
    core, into, beside = (
        CoreChain(model),
        Stack(model, "into the weights"),
        Stack(model, "beside the weights"),
    )
    sides = {"core": core, "into": into, "beside": beside}
    cold: dict[str, list[float]] = {name: [] for name in sides}
    changed: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(options.repeats + 1):
        for name, side in sides.items():
            side.forget()
            first = _time(lambda side=side: settle(side.apply(WEIGHTS)))
            weights = list(WEIGHTS)
            weights[CHANGED] += 0.1 + repeat / 100
            second = _time(lambda side=side, weights=weights: settle(side.apply(tuple(weights))))
            if repeat:  # the first round warms up
                cold[name].append(first)
                changed[name].append(second)
    rows = []
    for kind, times, goals in (("cold", cold, (1.0, None)), ("changed", changed, (5.0, 5.0))):
        rows += [row_of_samples(f"{kind}: {name}", samples, "s") for name, samples in times.items()]
        for name, goal in zip(("into", "beside"), goals, strict=True):
            ratios = [a / b for a, b in zip(times["core"], times[name], strict=True)]
            rows.append(
                row_of_samples(
                    f"{kind}: times faster than core, {name}", ratios, "x", goal and f">= {goal:g}"
                )
            )
    rows.append(compare(core.apply(WEIGHTS), into.apply(WEIGHTS)))
    rows += cost_of_a_step(model, beside.apply(WEIGHTS), options.repeats)
    return rows


class CoreChain:
    """Five LoraLoaderModelOnly nodes as ComfyUI runs them: only from the changed one on."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.forget()

    def forget(self) -> None:
        import nodes

        self.loaders = [nodes.LoraLoaderModelOnly() for _ in range(COUNT)]
        self.results: list[tuple[float, Any]] = []

    def apply(self, weights: tuple[float, ...]) -> Any:
        model, same = self.model, True
        for number, weight in enumerate(weights):
            same = same and number < len(self.results) and self.results[number][0] == weight
            if not same:
                name = f"{number}.safetensors"
                self.results[number:] = [
                    (weight, self.loaders[number].load_lora_model_only(model, name, weight)[0])
                ]
            model = self.results[number][1]
        return model


class Stack:
    """Klein LoRA Stack, whole, as its node runs."""

    def __init__(self, model: Any, apply: str) -> None:
        self.model, self.how = model, apply

    def forget(self) -> None:
        pass

    def apply(self, weights: tuple[float, ...]) -> Any:
        from kleinod.nodes.loras.nodes import KleinodLoraStack

        rows = "\n".join(f"{number}.safetensors {weight}" for number, weight in enumerate(weights))
        return KleinodLoraStack.execute(model=self.model, rows=rows, apply=self.how).args[0]


def settle(model: Any) -> None:
    """Make the weights those of `model`, as the start of sampling does."""
    import comfy.model_management
    import torch

    comfy.model_management.load_models_gpu([model], force_full_load=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def compare(core: Any, ours: Any) -> Row:
    """The largest difference of any patched weight, as a share of the largest change."""
    settle(core)
    theirs = {key: weight.clone() for key, weight in core.model.state_dict().items() if key in core.patches}
    settle(ours)
    own = ours.model.state_dict()
    worst = max(float((own[key].float() - weight.float()).abs().max()) for key, weight in theirs.items())
    return Row("largest difference of a weight from core's", worst, "", goal="<= 0.001")


def cost_of_a_step(model: Any, beside: Any, repeats: int, size: int = 16) -> list[Row]:
    """Calls of the network without and with the side path, alternating, on a picture of size x size cells."""
    import comfy.samplers
    import torch

    noise = torch.randn(1, 128, size, size)
    words = [[torch.randn(1, 512, CONTEXT), {}]]

    def call(patcher: Any) -> float:
        spent: list[float] = []

        def once(network: Any, x: Any, sigmas: Any, extra_args: Any = None, **_: Any) -> Any:
            network(x, sigmas[:1], **extra_args)  # moves what it needs
            spent.append(_time(lambda: network(x, sigmas[:1], **extra_args)))
            return x

        guider = comfy.samplers.CFGGuider(patcher)
        guider.set_conds(words, words)
        guider.set_cfg(1.0)
        solver = comfy.samplers.KSAMPLER(once)
        guider.sample(noise, torch.zeros_like(noise), solver, torch.tensor([1.0, 0.5]), disable_pbar=True)
        return spent[0]

    pairs = [(call(model), call(beside)) for _ in range(repeats)]
    ratios = [100 * (with_path / plain - 1) for plain, with_path in pairs]
    return [row_of_samples("one step beside the weights takes longer by", ratios, "%")]


def free_gigabytes() -> float:
    import comfy.model_management as management

    return management.get_free_memory(management.get_torch_device()) / 1e9


def choose_size(gigabytes: float, bytes_per_weight: int) -> tuple[int, int, int]:
    """(width, double blocks, single blocks) that fill `gigabytes`, blocks in the 4B's proportion and never
    more than its.
    """
    for hidden in WIDTHS:
        square = hidden**2
        room = gigabytes * 1e9 / bytes_per_weight - 19 * square - CONTEXT * hidden
        singles = min(20, int(room / ((13 + 26 / 4) * square)))
        if singles >= 2:
            break
    return hidden, max(1, singles // 4), max(1, singles)


def shapes_of(hidden: int, doubles: int, singles: int) -> dict[str, tuple[int, ...]]:
    """The keys and shapes that ComfyUI knows a Klein by."""
    shapes: dict[str, tuple[int, ...]] = {"img_in.weight": (hidden, 128), "txt_in.weight": (hidden, CONTEXT)}
    shapes |= {"time_in.in_layer.weight": (hidden, 256), "time_in.out_layer.weight": (hidden, hidden)}
    for name, parts in (("double_stream_modulation_img", 6), ("double_stream_modulation_txt", 6)):
        shapes[f"{name}.lin.weight"] = (parts * hidden, hidden)
    shapes["single_stream_modulation.lin.weight"] = (3 * hidden, hidden)
    shapes["final_layer.adaLN_modulation.1.weight"] = (2 * hidden, hidden)
    shapes["final_layer.linear.weight"] = (128, hidden)
    linear = [
        (f"double_blocks.{i}.{stream}_{name}", rows, columns)
        for i in range(doubles)
        for stream in ("img", "txt")
        for name, rows, columns in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.0", 6, 1), ("mlp.2", 1, 3))
    ]
    linear += [(f"single_blocks.{i}.{name}", rows, columns) for i in range(singles)
               for name, rows, columns in (("linear1", 9, 1), ("linear2", 1, 4))]  # fmt: skip
    shapes |= {f"{name}.weight": (rows * hidden, columns * hidden) for name, rows, columns in linear}
    norms = [f"double_blocks.{i}.{s}_attn.norm" for i in range(doubles) for s in ("img", "txt")]
    norms += [f"single_blocks.{i}.norm" for i in range(singles)]
    return shapes | {f"{norm}.{part}_norm.scale": (128,) for norm in norms for part in ("query", "key")}


def draw_model(hidden: int, doubles: int, singles: int, dtype: Any) -> dict[str, Any]:
    """Random weights under the real names."""
    import torch

    return {
        key: torch.ones(shape, dtype=dtype)
        if key.endswith("scale")
        else torch.empty(shape, dtype=dtype).normal_(std=shape[-1] ** -0.5)
        for key, shape in shapes_of(hidden, doubles, singles).items()
    }


def write_lora(path: Path, state: dict[str, Any], seed: int) -> None:
    """A LoRA of every linear layer in bfloat16 with BFL's names, which core understands as well."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, weight in state.items():
        if key.endswith(".weight"):
            name = f"diffusion_model.{key.removesuffix('.weight')}"
            rows, columns = weight.shape
            down = torch.randn(RANK, columns, generator=generator) * columns**-0.5
            up = torch.randn(rows, RANK, generator=generator) * 0.02
            tensors[f"{name}.lora_A.weight"] = down.bfloat16()
            tensors[f"{name}.lora_B.weight"] = up.bfloat16()
            tensors[f"{name}.alpha"] = torch.tensor(float(RANK // 2))
    save_file(tensors, path)


def _time(work: Callable[[], Any]) -> float:
    import torch

    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
