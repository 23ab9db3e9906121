"""Every name of ComfyUI that the pack relies on beyond the published `comfy_api`, and what is off without it.

ComfyUI promises nothing about these names. At start-up a look at the list (no model, no file, milliseconds)
turns one that is gone into a sentence; the feature that needs it stays off by itself and the rest works. What
is checked: that the name is there, that it can be called as we call it, and, where a function speaks to us by
keys of a dict, that these keys stand in its code. tests/contract/test_seams.py holds the list against every
line of `nodes/`, and against the ComfyUI under test.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, SimpleNamespace
from typing import Any

from .errors import ArtistError
from .sentences import Sentence, join, say

logger = logging.getLogger("kleinod.seams")


class MissingSeam(ArtistError):
    """This ComfyUI lacks a name that a feature of the pack needs."""


@dataclass(frozen=True)
class Feature:
    """What goes off together. title: completes "... is off". instead: what happens then, a whole sentence."""

    title: Sentence
    instead: Sentence


LOADING = Feature(
    say("Klein Loader"),
    say("Load the parts with ComfyUI's own loaders; the other Klein nodes take them."),
)
NANO = Feature(Sentence("klein-nano"), say("Pick a diffusion model's file in Klein Loader."))
TRIMMING = Feature(
    say("The shortening of the text encoder"),
    say("All its layers run: the same pictures for more time and memory."),
)
PROMPTS = Feature(say("Klein Prompt"), say("Use CLIP Text Encode."))
SAMPLING = Feature(say("Klein Sampler"), say("Use ComfyUI's own sampler nodes with Flux2Scheduler."))
ACCELERATION = Feature(say("Acceleration"), say("Every step is computed."))
BLOCK_CACHES = Feature(
    say("Block caching (first block, dual block, tea)"), say("Every block of every step is computed.")
)
REFERENCE_KEYS = Feature(say("The reuse of references' keys"), say("References are computed at every step."))
LORA_STACK = Feature(say("Klein LoRA Stack"), say("Use Load LoRA."))
LORAS_IN_WEIGHTS = Feature(say("Writing LoRAs into the weights"), say("They run beside the layers instead."))
LORAS_BESIDE = Feature(
    say("Running LoRAs beside the layers"),
    say("They go into the weights instead; rows with a stage are refused."),
)
CORE_ADAPTERS = Feature(
    say("OFT, BOFT and GLoRA in Klein LoRA Stack"), say("Files of LoRA, LoHa and LoKr act.")
)
REFERENCES = Feature(say("Klein References"), say("Use ReferenceLatent."))
REFERENCE_WEIGHTS = Feature(
    say("Weighing references"),
    say("Leave weights, steps and places of Klein References empty: all count in full."),
)
IMAGE_GUIDANCE = Feature(say("Image guidance"), say("Set image_guidance of Klein Sampler to 1."))
FACES = Feature(say("Klein Face Refiner"), say("Pictures stay as they are."))
MEDIAPIPE = Feature(say("The face detector of ComfyUI"), say("Pick a YOLO file in Klein Face Settings."))
KEEP = Feature(say("Klein Keep"), say("The edited picture stays as it came."))
STUDY = Feature(say("Klein Compare and Klein Calibrate"), say("Pictures are not affected."))
RIVAL = Feature(say("EasyCache as a candidate of Klein Compare"), say("The other candidates are compared."))
REMOTE = Feature(say("The remote nodes"), say("No job can be sent."))
SERVICE = Feature(
    say("The API that answers and Copy/Paste as Runware JSON"), say("Graphs run from the page.")
)
PAGE = Feature(
    say("What nodes say on the page"), say("It stands in ComfyUI's log and in the nodes' outputs.")
)
PREVIEWS = Feature(
    say("The preview of Klein Sampler"), say("ComfyUI's own appear where they are switched on.")
)
ROUTES = Feature(
    say("All that the page asks Kleinod for (keys, prices, lists of files, the API)"),
    say("Nodes run with what stands in their inputs."),
)
KNOWN_SEEDS = Feature(
    say("The note of seeds in files of pictures that are not sampled anew"),
    say("It is in all files that are saved in the run that samples."),
)


@dataclass(frozen=True)
class Seam:
    """One name, at "module:Name.attribute".

    takes: parameters that we pass by name. places: how many we pass by position (self counts), None where it
    is not called. speaks: keys in its code.
    """

    place: str
    features: tuple[Feature, ...]
    takes: tuple[str, ...] = ()
    places: int | None = None
    speaks: tuple[str, ...] = ()


def _seams(module: str, *features: Feature, **names: str) -> Iterator[Seam]:
    """A module's names, two underscores for a dot, each with how it is used: "2 seed" is a call with two
    parameters by position and one by name, "!key" a word that it speaks, "" a mere look.
    """
    for name, uses in names.items():
        words = uses.split()
        counts = [int(word) for word in words if word.isdigit()]
        speaks = tuple(word[1:] for word in words if word.startswith("!"))
        takes = tuple(word for word in words if not word.isdigit() and not word.startswith("!"))
        places = counts[0] if counts else 0 if takes else None
        yield Seam(f"{module}:{name.replace('__', '.')}", features, takes, places, speaks)


_PATCHING = (ACCELERATION, LORAS_BESIDE, STUDY, NANO)

SEAMS: tuple[Seam, ...] = (
    *_seams(
        "comfy.model_patcher",
        SAMPLING,
        LORA_STACK,
        ModelPatcher__clone="1",
        ModelPatcher__get_model_object="2",
        ModelPatcher__get_attachment="2",
        ModelPatcher__set_attachments="3",
    ),
    *_seams("comfy.model_patcher", LORAS_IN_WEIGHTS, ModelPatcher__add_patches="2"),
    *_seams("comfy.model_patcher", *_PATCHING, ModelPatcher__add_wrapper_with_key="4"),
    *_seams(
        "comfy.model_patcher",
        ACCELERATION,
        STUDY,
        ModelPatcher__remove_wrappers_with_key="3",
        ModelPatcher__get_wrappers="3",
        create_model_options_clone="1",
    ),
    *_seams(
        "comfy.model_patcher",
        STUDY,
        ModelPatcher__set_model_patch="3",
        ModelPatcher__set_model_patch_replace="5",
        ModelPatcher__model_dtype="1",
    ),
    *_seams("comfy.model_patcher", NANO, CoreModelPatcher="1 load_device offload_device"),
    *_seams("comfy.sd", NANO, VAE__model_size="1"),
    *_seams("comfy.patcher_extension", *_PATCHING, WrappersMP__OUTER_SAMPLE="", WrappersMP__APPLY_MODEL=""),
    *_seams(
        "comfy.patcher_extension",
        ACCELERATION,
        STUDY,
        WrappersMP__PREDICT_NOISE="",
        WrappersMP__CALC_COND_BATCH="",
    ),
    *_seams("comfy.patcher_extension", STUDY, NANO, WrappersMP__DIFFUSION_MODEL=""),
    *_seams(
        "comfy.samplers",
        SAMPLING,
        FACES,
        CFGGuider__set_conds="3",
        CFGGuider__set_cfg="2",
        CFGGuider__sample="5 denoise_mask callback disable_pbar seed",
        KSAMPLER="1",
        ksampler="2",
        sampler_object="1",
    ),
    *_seams(
        "comfy.samplers",
        ACCELERATION,
        CFGGuider__predict_noise="5",
        _calc_cond_batch="!uuids !cond_or_uncond",
    ),
    *_seams(
        "comfy.ldm.flux.model",
        BLOCK_CACHES,
        REFERENCE_KEYS,
        STUDY,
        Flux__forward_orig="!post_input !dit !double_block !single_block !original_block !img_slice "
        "!block_index",
    ),
    *_seams("comfy.ldm.flux.model", REFERENCE_KEYS, STUDY, Flux___forward="!reference_image_num_tokens"),
    *_seams(
        "comfy.ldm.flux.layers",
        REFERENCE_KEYS,
        DoubleStreamBlock__forward="!attn1_patch !attn_mask",
        SingleStreamBlock__forward="!attn1_patch !attn_mask",
    ),
    *_seams(
        "comfy.controlnet",
        REFERENCE_WEIGHTS,
        ControlBase__pre_run="3",
        ControlBase__copy_to="2",
    ),
    *_seams(
        "comfy.samplers",
        REFERENCE_WEIGHTS,
        _calc_cond_batch="!sigmas",
    ),
    *_seams(
        "comfy.ldm.modules.attention",
        REFERENCE_WEIGHTS,
        attention_pytorch="4 mask skip_reshape",
        wrap_attn="!optimized_attention_override",
    ),
    *_seams("comfy.ldm.flux.model", REFERENCE_WEIGHTS, Flux___forward="!reference_image_num_tokens"),
    *_seams("comfy.model_patcher", IMAGE_GUIDANCE, ModelPatcher__set_model_sampler_post_cfg_function="2"),
    *_seams("comfy.samplers", IMAGE_GUIDANCE, calc_cond_batch="5", cfg_function="!cond_denoised !input"),
    *_seams("comfy.latent_formats", SAMPLING, NANO, Flux2=""),
    *_seams("comfy.ldm.models.autoencoder", NANO, AutoencoderKL=""),
    *_seams(
        "comfy.sample",
        SAMPLING,
        FACES,
        prepare_noise="3",
        fix_empty_latent_channels="4",
    ),
    *_seams("latent_preview", SAMPLING, FACES, get_previewer="2", Latent2RGBPreviewer="3"),
    *_seams(
        "comfy.sd",
        TRIMMING,
        NANO,
        CLIP="1 embedding_directory parameters state_dict model_options disable_dynamic",
    ),
    *_seams("comfy.sd", TRIMMING, llama_detect="1"),
    *_seams("comfy.sd", PROMPTS, FACES, CLIP__tokenize="2", CLIP__encode_from_tokens_scheduled="2"),
    *_seams("comfy.sd", NANO, load_diffusion_model_state_dict="1 disable_dynamic", VAE="sd config dtype"),
    *_seams("comfy.sd", SAMPLING, REFERENCES, VAE__encode="2", VAE__decode="2"),
    *_seams("comfy.text_encoders.flux", TRIMMING, klein_te="model_type", KleinTokenizer8B=""),
    *_seams("comfy.text_encoders.flux", TRIMMING, NANO, KleinTokenizer=""),
    *_seams(
        "comfy.utils",
        TRIMMING,
        convert_old_quants="1 model_prefix metadata",
        state_dict_prefix_replace="2",
        calculate_parameters="1",
    ),
    *_seams("comfy.utils", TRIMMING, NANO, MEDIAPIPE, load_torch_file="1 safe_load return_metadata"),
    *_seams("comfy.utils", LOADING, LORA_STACK, REFERENCES, KEEP, ProgressBar="1", ProgressBar__update="2"),
    *_seams(
        "comfy.utils",
        SAMPLING,
        PROGRESS_BAR_ENABLED="",
        common_upscale="5",
    ),
    *_seams("comfy.weight_adapter.oft", CORE_ADAPTERS, OFTAdapter="2", OFTAdapter__calculate_weight="8"),
    *_seams("comfy.weight_adapter.boft", CORE_ADAPTERS, BOFTAdapter="2", BOFTAdapter__calculate_weight="8"),
    *_seams(
        "comfy.weight_adapter.glora", CORE_ADAPTERS, GLoRAAdapter="2", GLoRAAdapter__calculate_weight="8"
    ),
    *_seams(
        "comfy.model_patcher",
        LORAS_BESIDE,
        ModelPatcher__get_callbacks="3",
        ModelPatcher__add_callback_with_key="4",
        ModelPatcher__get_key_patches="2",
        ModelPatcher__state_dict_for_saving="1",
        ModelPatcher__remove_wrappers_with_key="3",
    ),
    *_seams("comfy.patcher_extension", LORAS_BESIDE, CallbacksMP__ON_CLONE=""),
    *_seams("comfy.model_management", LORAS_BESIDE, load_models_gpu="1"),
    *_seams(
        "comfy.weight_adapter",
        LORAS_IN_WEIGHTS,
        WeightAdapterBase="",
        WeightAdapterBase__calculate_weight="1 weight key strength strength_model offset function "
        "intermediate_dtype original_weight",
    ),
    *_seams(
        "comfy.model_management",
        LOADING,
        SAMPLING,
        LORA_STACK,
        REFERENCES,
        FACES,
        KEEP,
        is_oom="1",
        throw_exception_if_processing_interrupted="0",
        intermediate_device="0",
        get_torch_device="0",
        soft_empty_cache="0",
    ),
    *_seams("comfy.model_management", SAMPLING, REMOTE, InterruptProcessingException=""),
    *_seams("comfy.model_management", REMOTE, processing_interrupted="0"),
    *_seams("comfy.cli_args", REMOTE, args__enable_cors_header="", args__multi_user="", args__port=""),
    *_seams("comfy_execution.graph_utils", FACES, REMOTE, ExecutionBlocker="1"),
    *_seams("comfy_execution.utils", PAGE, PREVIEWS, REMOTE, get_executing_context="0"),
    *_seams("comfy_extras.nodes_easycache", RIVAL, EasyCacheNode__execute="5"),
    *_seams("comfy_extras.nodes_mediapipe", MEDIAPIPE, FaceLandmarkerModel=""),
    *_seams(
        "folder_paths",
        LOADING,
        LORA_STACK,
        FACES,
        add_model_folder_path="2",
        folder_names_and_paths="",
        get_filename_list="1",
        get_folder_paths="1",
        get_full_path="2",
        get_full_path_or_raise="2",
        models_dir="",
    ),
    *_seams("folder_paths", ACCELERATION, LORA_STACK, REMOTE, get_system_user_directory="1"),
    *_seams("folder_paths", REMOTE, get_output_directory="0"),
    *_seams("folder_paths", SERVICE, get_input_directory="0", get_temp_directory="0"),
    *_seams("nodes", SERVICE, LoadImage__load_image="1 image"),
    *_seams("node_helpers", REFERENCES, conditioning_set_values="2 append"),
    *_seams(
        "nodes",
        LOADING,
        UNETLoader__load_unet="3",
        VAELoader__load_vae="2",
        CLIPLoader__load_clip="2 type device",
        NODE_CLASS_MAPPINGS="",
    ),
    # Only what shows things hangs on the server: a script that samples has none, and needs none.
    *_seams("server", PAGE, PromptServer__send_progress_text="3"),
    *_seams("server", KNOWN_SEEDS, PromptServer__add_on_prompt_handler="2"),
    # What the server has only once it is made stands in the code that makes it.
    Seam("server:PromptServer.__init__", (ROUTES,), speaks=("routes", "app")),
    Seam("server:PromptServer.__init__", (PREVIEWS,), speaks=("client_id", "prompt_queue")),
    *_seams("execution", PREVIEWS, PromptQueue__get_current_queue_volatile="1"),
)


class Absent:
    """In the place of a name that ComfyUI lacks: false, and the sentence at any use."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __bool__(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        raise MissingSeam(_sentence(None, [Sentence(self._place)]))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        raise MissingSeam(_sentence(None, [Sentence(self._place)]))


def find(place: str) -> Any:
    """What stands at "module:Name.attribute" of ComfyUI, or at "module"; `Absent` where nothing does."""
    module, _, path = place.partition(":")
    try:
        found = importlib.import_module(module)
        for name in path.split(".") if path else ():
            found = getattr(found, name)
    except (ImportError, AttributeError):
        logger.debug("Not in this ComfyUI: %s", place, exc_info=True)
        return Absent(place.replace(":", "."))
    return found


def modules(*names: str) -> Any:
    """What `import a.b, a.c` binds as `a`, with `Absent` in the place of a module that ComfyUI lacks.

    All of ComfyUI beyond `comfy_api` comes into the pack by this and by `find`, so that a module that is gone
    ends no start.
    """
    root = SimpleNamespace()
    for name in names:
        *folders, last = name.split(".")[1:]
        place = root
        for folder in folders:
            place = vars(place).setdefault(folder, SimpleNamespace())
        setattr(place, last, find(name))
    return root


def find_server() -> Any:
    """ComfyUI's server; None where none runs, as in a script. Looked up late: it is slow to load."""
    server = find("server:PromptServer")
    return getattr(server, "instance", None) if server else None


def version() -> str:
    """This ComfyUI's version, "" where it does not say."""
    return str(find("comfyui_version:__version__") or "")


@functools.cache
def missing(feature: Feature) -> Sentence:
    """The sentence that says that a feature is off and why; "" where ComfyUI has all that it needs."""
    gone = [fault for seam in SEAMS if feature in seam.features for fault in [_fault(seam)] if fault]
    return _sentence(feature, gone) if gone else Sentence("")


def require(feature: Feature) -> None:
    """Raises MissingSeam, with the sentence, where a feature is off."""
    sentence = missing(feature)
    if sentence:
        raise MissingSeam(sentence)


def report() -> list[Sentence]:
    """One sentence for each feature that is off on this ComfyUI."""
    features = dict.fromkeys(feature for seam in SEAMS for feature in seam.features)
    return [sentence for feature in features for sentence in [missing(feature)] if sentence]


def _fault(seam: Seam) -> Sentence:
    """What is wrong with a seam, as words for a list; "" where it holds."""
    name = seam.place.replace(":", ".")
    found = find(seam.place)
    if isinstance(found, Absent):
        return Sentence(name)
    if seam.places is not None and not _can_be_called(found, seam.places, seam.takes):
        return say("%1 as it was called", name)
    code = getattr(inspect.unwrap(found), "__code__", None) if seam.speaks else None
    silent = [word for word in seam.speaks if word not in words_of(code)] if code is not None else []
    return say("the key %1 in %2", silent[0], name) if silent else Sentence("")


def _can_be_called(found: Callable[..., Any], places: int, takes: tuple[str, ...]) -> bool:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return True  # written in C: nothing is known
    try:
        signature.bind_partial(*(None,) * places, **dict.fromkeys(takes))
    except TypeError:
        return False
    return True


def words_of(code: CodeType) -> set[str]:
    """The texts and names that stand in a function's code, those of functions inside it included."""
    words = set(code.co_names) | set(code.co_varnames)
    for constant in code.co_consts:
        if isinstance(constant, str):
            words.add(constant)
        elif isinstance(constant, tuple):
            words |= {one for one in constant if isinstance(one, str)}
        elif isinstance(constant, CodeType):
            words |= words_of(constant)
    return words


def _sentence(feature: Feature | None, gone: list[Sentence]) -> Sentence:
    lacking = say("%1 and %2 more", gone[0], len(gone) - 1) if len(gone) > 1 else gone[0]
    newer = say("A newer Kleinod may know this ComfyUI: update it.")
    if feature is None:
        return join(
            " ", [say("This ComfyUI (%1) lacks %2, which Kleinod relies on.", _named(), lacking), newer]
        )
    off = say(
        "%1 is off: this ComfyUI (%2) lacks %3, which Kleinod relies on.", feature.title, _named(), lacking
    )
    return join(" ", [off, feature.instead, newer])


def _named() -> str:
    return version() or "?"
