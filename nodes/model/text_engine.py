"""The text encoder: ComfyUI's own Klein classes without the layers nobody reads, and prompts through it.

ComfyUI runs all 36 layers of Qwen3 although Klein reads the states after 9, 18 and 27 alone. Built with 27
layers and no final norm, the same class gives the same three states, bit for bit, for three quarters of time
and memory.
"""

from __future__ import annotations

from typing import Any

import torch

from ..base import seams
from ..base.errors import InputError
from ..base.flux2 import FAMILIES, KLEIN_4B, KLEIN_9B, find_family_of_encoder
from ..base.sentences import Sentence, say
from .facts import KleinFacts
from .nano import NanoTextModel
from .nano_words import describe_unknown, find_unknown_words
from .pairing import ENCODER_LAYERS, encoder_mismatch
from .prompt import PAD_TOKEN, PromptReport, check_encoder_width, truncate

comfy = seams.modules("comfy.sd", "comfy.utils")
folder_paths = seams.find("folder_paths")

flux = seams.find("comfy.text_encoders.flux")


def load_text_encoder(
    path: str, sizes: dict[str, int], device: str = "default", disable_dynamic: bool = False
) -> Any:
    """ComfyUI's Klein CLIP holding only the layers Klein reads: 27 of 36, a quarter of time and memory saved.

    `sizes` come from `check_text_encoder`. Without a final norm the last tap stays what it is in the whole
    encoder: the plain output of layer 27.
    """
    state, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    state, metadata = comfy.utils.convert_old_quants(state, model_prefix="", metadata=metadata)
    state = comfy.utils.state_dict_prefix_replace(state, {"model.language_model.": "model."})
    name = (find_family_of_encoder(sizes["hidden_size"]) or KLEIN_4B).tokenizer

    class Target:
        clip = flux.klein_te(**comfy.sd.llama_detect([state]), model_type=name)
        tokenizer = flux.KleinTokenizer8B if name == KLEIN_9B.tokenizer else flux.KleinTokenizer
        params: dict[str, Any] = {}

    config = {key: value for key, value in sizes.items() if key != "layers_stored"}
    options: dict[str, Any] = {f"{name}_model_config": {**config, "final_norm": False}}
    if device == "cpu":
        options["load_device"] = options["offload_device"] = torch.device("cpu")
    state = {key: value for key, value in state.items() if _is_read(key)}
    clip = comfy.sd.CLIP(
        Target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=comfy.utils.calculate_parameters(state),
        state_dict=[state],
        model_options=options,
        disable_dynamic=disable_dynamic,
    )
    _encoder_module(clip).generate = _refuse_generation
    clip.patcher.cached_patcher_init = (_reload_text_encoder, (path, sizes, device))
    return clip


def _reload_text_encoder(path: str, sizes: dict[str, int], device: str, disable_dynamic: bool = False) -> Any:
    return load_text_encoder(path, sizes, device, disable_dynamic).patcher


def check_loaded_encoder(clip: Any, name: str, facts: KleinFacts) -> None:
    """ValueError unless a CLIP loaded by another pack is the Qwen3 that the model reads."""
    label = f'text_encoder "{name}"'
    if getattr(clip.cond_stage_model, "clip", None) not in [family.tokenizer for family in FAMILIES]:
        raise InputError(say("%1 is not a Qwen3 text encoder: pick the one made for the model.", label))
    width = _encoder_module(clip).transformer.model.config.hidden_size
    if 3 * width != facts.context_width:
        raise InputError(encoder_mismatch(label, width, facts))


def drop_unread_layers(clip: Any) -> None:
    """Take the unread layers and the final norm off a freshly loaded Klein CLIP; GGUF brings them all."""
    transformer = _encoder_module(clip).transformer
    del transformer.model.layers[ENCODER_LAYERS:]
    transformer.model.norm = None
    _encoder_module(clip).generate = _refuse_generation


def _encoder_module(clip: Any) -> Any:
    return getattr(clip.cond_stage_model, clip.cond_stage_model.clip)


def _is_read(key: str) -> bool:
    parts = key.split(".")
    if key.startswith("model.layers.") and parts[2].isdigit():
        return int(parts[2]) < ENCODER_LAYERS
    return not key.startswith(("model.norm.", "model.lm_head.", "lm_head.", "model.visual.", "visual."))


def _refuse_generation(*args: Any, **kwargs: Any) -> None:
    raise InputError(
        say(
            "clip comes from the Klein Loader, which keeps only the layers that pictures need, so it cannot "
            "write text: use Load CLIP for the Generate Text node."
        )
    )


def encode_prompt(clip: Any, text: str, field: str) -> tuple[list, PromptReport]:
    """Text, cut at 512 tokens, to conditioning `[[tensor [1, 512, width], {...}]]`, and its report."""
    seams.require(seams.PROMPTS)
    if clip is None:
        raise InputError(say("clip is empty: connect the CLIP of the Klein Loader."))
    # Half of an emoji, where text was cut in the middle of one, is no Unicode that tokenizers take.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    tokens, report = truncate(
        clip.tokenize(text), field, lambda ids: clip.tokenizer.decode(ids, skip_special_tokens=False)
    )
    conditioning = clip.encode_from_tokens_scheduled(tokens)
    check_encoder_width(conditioning[0][0].shape[-1])
    return conditioning, report


def warn_of_unknown_words(clip: Any, text: str, field: str) -> list[Sentence]:
    """What klein-nano will not make of a prompt, in a sentence; nothing for every other text encoder."""
    model = getattr(clip, "cond_stage_model", None)
    if not isinstance(model, NanoTextModel):
        return []
    vocabulary = set(model.encoder.vocabulary.tolist()) | {PAD_TOKEN}

    def is_known(word: str) -> bool:
        (row,) = clip.tokenize(f"a {word.lower()}").values()
        return all(entry[0] in vocabulary for chunk in row for entry in chunk)

    return describe_unknown(field, find_unknown_words(text, is_known))
