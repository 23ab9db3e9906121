"""What test_missing_seams.py runs: one import of ComfyUI, then a fork for each way it may be other.

Prints one line of JSON: case -> what the pack said at its start, and a digest of each picture, or what
sentence came instead. Arguments after the two folders: modules of ComfyUI, each of which is gone in a case of
its own, named "without <module>".
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import inspect
import json
import logging
import os
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

STEPS, FEW = 8, 2  # the fewest of which the forecast skips one; enough for LoRAs, also in a stage
ROOT, COMFYUI, MODULES = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
for name in ("tools", "tests"):
    alias = ModuleType(name)
    alias.__path__ = [str(ROOT / name)]
    sys.modules[name] = alias

from tools.launch.pack import enable_comfyui, load_pack  # noqa: E402

enable_comfyui(COMFYUI, ("--cpu",))

import comfy.cli_args  # noqa: E402
import comfy.ldm.flux.model  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.text_encoders.flux  # noqa: E402
import comfy.weight_adapter  # noqa: E402
import folder_paths  # noqa: E402
import torch  # noqa: E402

import nodes as comfy_nodes  # noqa: E402
from tests.model.tiny_klein import (  # noqa: E402
    CONTEXT,
    load_tiny_model,
    random_conditioning,
    tiny_clip,
    tiny_vae,
    write_tiny_files,
)

asyncio.run(comfy_nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))


def reword(old: str, new: str) -> None:
    """Give Flux's loop over its blocks another word, as a later ComfyUI might."""
    module = comfy.ldm.flux.model
    source = textwrap.dedent(inspect.getsource(module.Flux.forward_orig))
    assert old in source
    space = dict(vars(module))
    exec(compile(source.replace(old, new), "later ComfyUI", "exec"), space)  # noqa: S102
    module.Flux.forward_orig = space["forward_orig"]


def record() -> None:
    """As ComfyUI's loops do that hand their blocks over to be recorded; more ways: test_graph_capture.py."""
    dit = 'blocks_replace = patches_replace.get("dit", {})'
    reword(dit, f"{dit}; enable_graph = True")


def no_graphs() -> None:
    record()
    comfy.cli_args.args.disable_cuda_graphs = True


REMOVALS: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "acceleration": lambda: delattr(comfy.model_patcher.ModelPatcher, "get_wrappers"),
    "blocks": lambda: reword("post_input", "after_input"),
    "adapters": lambda: delattr(comfy.weight_adapter, "WeightAdapterBase"),
    "wrappers": lambda: delattr(comfy.model_patcher.ModelPatcher, "add_wrapper_with_key"),
    "trimming": lambda: delattr(comfy.text_encoders.flux, "KleinTokenizer8B"),
    "sampler": lambda: delattr(comfy.samplers.CFGGuider, "set_cfg"),
    "recorded": record,
    "recorded, switched off": no_graphs,
}


def hide(module: str) -> None:
    """From now on no import finds it; what of ComfyUI has it already goes on."""
    sys.modules[module] = None  # type: ignore[assignment]


def said_by(work: Callable[[], Any]) -> Any:
    """What `work` gives, or the sentence it raises; anything but a sentence is a fault."""
    from kleinod.nodes.base.errors import ArtistError

    try:
        return work()
    except ArtistError as error:
        return f"{type(error).__name__}: {error}"


def digest(image: torch.Tensor) -> str:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()


def write_lora(folder: Path) -> str:
    from safetensors.torch import save_file

    draw = torch.Generator().manual_seed(5)
    state = {}
    for module, rows in (("single_blocks.0.linear2", 128), ("single_blocks.1.linear2", 128)):
        state[f"diffusion_model.{module}.lora_A.weight"] = torch.randn(4, 512, generator=draw) * 0.1
        state[f"diffusion_model.{module}.lora_B.weight"] = torch.randn(rows, 4, generator=draw)
    save_file(state, folder / "tiny.safetensors")
    return "tiny.safetensors"


def start_pack() -> dict[str, Any]:
    """The pack as ComfyUI starts it: said, what it had to say; nodes, the ids of those ComfyUI can list."""
    logs: list[str] = []
    keep = logging.Handler()
    keep.emit = lambda record: logs.append(record.getMessage())
    logging.getLogger("kleinod.pack").addHandler(keep)
    extension = asyncio.run(load_pack(ROOT).comfy_entrypoint())
    asyncio.run(extension.on_load())
    nodes = [node.GET_SCHEMA().node_id for node in asyncio.run(extension.get_node_list())]
    return {"said": [line for line in logs if " is off: " in line], "nodes": nodes}


def run_without(model: Any, vae: Any) -> dict[str, Any]:
    """The start, and one small picture each way."""
    case = start_pack()

    from kleinod.nodes.edits.nodes import KleinodKeep
    from kleinod.nodes.loras.nodes import KleinodLoraStack
    from kleinod.nodes.sampling.nodes import KleinodSampler

    positive, negative = (random_conditioning(seed, width=CONTEXT) for seed in (1, 2))

    def sample(model: Any) -> str:
        made = KleinodSampler.execute(model, positive, negative, vae, 128, 128, 2, 4.0, 1, "Default", 1)
        return digest(made.args[0])

    def stack(apply: str = "into the weights") -> str:
        stacked = KleinodLoraStack.execute(
            rows="", lora="tiny.safetensors", weight=1.0, stage="both", missing_files="stop with an error",
            stage_boundary="share of steps", boundary_at=0.5, apply=apply,
            model=model,
        ).args[0]  # fmt: skip
        return sample(stacked)

    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    ways = {
        "plain": lambda: sample(model),
        "lora": stack,
        "beside": lambda: stack("beside the weights"),
        "keep": lambda: digest(KleinodKeep.execute(image, image).args[0]),
    }
    return case | {way: said_by(work) for way, work in ways.items()}


def run_case(name: str, folder: Path) -> dict[str, Any]:
    case = start_pack()

    from kleinod.nodes.base.values import HIGHER_REUSES_MORE, Acceleration
    from kleinod.nodes.loras.nodes import KleinodLoraStack
    from kleinod.nodes.model.nodes import KleinodLoader
    from kleinod.nodes.sampling.nodes import KleinodSampler

    vae = tiny_vae()
    positive, negative = (random_conditioning(seed, width=CONTEXT) for seed in (1, 2))

    def sample(model: Any, settings: Any = None, steps: int = STEPS) -> tuple[str, str]:
        size = (128, 128)
        out = KleinodSampler.execute(
            model, positive, negative, vae, *size, steps, 4.0, 1, "Default", 1, acceleration_settings=settings
        ).args
        return digest(out[0]), out[2]

    def stack(**changes: Any) -> tuple[str, str]:
        inputs = {
            "rows": "", "lora": "tiny.safetensors", "weight": 1.0, "stage": "both",
            "missing_files": "stop with an error", "stage_boundary": "share of steps", "boundary_at": 0.5,
            "apply": "into the weights", "model": load_tiny_model(),
        }  # fmt: skip
        model, *_, info = KleinodLoraStack.execute(**{**inputs, **changes}).args
        return sample(model, steps=FEW)[0], info

    def keep_both(name: str, work: Callable[[], tuple[str, str]]) -> None:
        found = said_by(work)
        case[name], case[f"{name}_info"] = found if isinstance(found, tuple) else (found, found)

    plain = said_by(lambda: sample(load_tiny_model()))
    case["plain"] = plain[0] if isinstance(plain, tuple) else plain
    if plain is case["plain"]:
        return case
    case["bare"], _ = sample(load_tiny_model(), steps=FEW)
    forecast = Acceleration("medium", forecast_error_limit=10.0)
    case["accelerated"], case["info"] = sample(load_tiny_model(), forecast)
    # Tea alone skips on random weights at sigmas as far apart as these; read the other way, 1.0 means never.
    blocks = Acceleration(
        "none", tea_cache=True, tea_cache_distance=1.0, threshold_meaning=HIGHER_REUSES_MORE
    )
    keep_both("blocks", lambda: sample(load_tiny_model(), blocks))
    keep_both("lora", stack)
    keep_both("beside", lambda: stack(apply="beside the weights"))
    keep_both("staged", lambda: stack(stage="high"))
    if name == "wrappers":
        case["nano"] = said_by(lambda: str(KleinodLoader.execute(
        "klein-nano (built in)", "default", "automatic", "default", "automatic", "auto"
    ).args[3]))  # fmt: skip

    if name == "trimming":
        case |= load_whole_encoder()
    return case


def load_whole_encoder() -> dict[str, Any]:
    """The loader with a tiny text encoder, which stands for what ComfyUI's own loader would give."""
    from kleinod.nodes.model.nodes import KleinodLoader

    whole = tiny_clip()
    load_clip, asked = comfy_nodes.CLIPLoader.load_clip, []
    comfy_nodes.CLIPLoader.load_clip = lambda self, *names, **named: (asked.append(names), (whole,))[1]
    loaded = KleinodLoader.execute(
        "flux-2-klein-base-4b-tiny.safetensors", "default", "automatic", "default", "automatic", "auto"
    ).args
    comfy_nodes.CLIPLoader.load_clip = load_clip
    return {"clip_of_core": bool(asked) and loaded[1] is whole, "loader_info": loaded[3]}


def fork(name: str, folder: Path) -> dict[str, Any]:
    """One case in a process of its own; its answer comes back in a file."""
    answer = folder / f"{name}.json"
    child = os.fork()
    if child == 0:
        try:
            with torch.inference_mode():  # as ComfyUI runs nodes
                if name in REMOVALS:
                    REMOVALS[name]()
                    done = run_case(name, folder)
                else:
                    parts = load_tiny_model(), tiny_vae()
                    hide(name.removeprefix("without "))
                    done = run_without(*parts)
                answer.write_text(json.dumps(done))
        except BaseException:
            answer.write_text(json.dumps({"error": traceback.format_exc()}))
        os._exit(0)
    os.waitpid(child, 0)
    return json.loads(answer.read_text())


def main() -> None:
    torch.set_num_threads(1)
    for name in MODULES:
        importlib.import_module(name)  # else hiding one would hide others that import it
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        # Each fork loads the pack anew, and finds it compiled, also where Python is told to keep nothing.
        sys.dont_write_bytecode, sys.pycache_prefix = False, str(folder / "compiled")
        write_tiny_files(folder)
        (folder / "loras").mkdir()
        write_lora(folder / "loras")
        for kind in ("diffusion_models", "text_encoders", "vae", "loras"):
            _, endings = folder_paths.folder_names_and_paths[kind]
            folder_paths.folder_names_and_paths[kind] = ([str(folder / kind)], endings)
        cases = [*REMOVALS, *(f"without {module}" for module in ("nothing", *MODULES))]
        print(json.dumps({name: fork(name, folder) for name in cases}))


main()
