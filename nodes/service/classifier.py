"""Whether a picture should not be shown: an image classifier that the owner has installed, for
`safety.checkContent`.

A folder as Hugging Face's `transformers` (which ComfyUI brings) saves image classifiers: config.json,
preprocessor_config.json and weights as safetensors. It is read from the disk alone and loaded when it is
first needed; code in the folder is never run.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from ..base.errors import InputError
from ..base.sentences import say

FLAGGED = re.compile(r"nsfw|porn|hentai|sexual|explicit|unsafe|nud(e|ity)|gore|violen", re.IGNORECASE)
THRESHOLD = 0.5

Judge = Callable[[bytes], bool]


class Classifier:
    """The classifier of one folder. flagged: labels that keep a picture back from being called safe; where it
    is empty, those whose names say so.
    """

    def __init__(self, folder: str, flagged: tuple[str, ...] = ()) -> None:
        self.folder, self._wanted = folder, flagged
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any, list[int]] | None = None

    def __call__(self, data: bytes) -> bool:
        """Whether the picture in these bytes is flagged. Raises InputError where the folder holds no usable
        classifier. Slow: for a thread.
        """
        with self._lock:  # one picture at a time: it may be as large as the machine bears
            model, processor, numbers = self._loaded = self._loaded or self._load()
            import torch

            with Image.open(io.BytesIO(data)) as picture, torch.inference_mode():
                given = processor(images=picture.convert("RGB"), return_tensors="pt")
                shares = model(**given).logits.float().softmax(-1)[0]
        return bool(shares[numbers].sum() >= THRESHOLD)

    def check(self) -> None:
        """Load it now. Raises InputError."""
        with self._lock:
            self._loaded = self._loaded or self._load()

    def _load(self) -> tuple[Any, Any, list[int]]:
        if not Path(self.folder, "config.json").is_file():
            raise InputError(
                say(
                    "classifier is '%1', but must be a folder on this machine "
                    "that holds an image classifier: "
                    "config.json, preprocessor_config.json and model.safetensors.",
                    self.folder,
                )
            )
        try:
            from transformers import AutoImageProcessor, AutoModelForImageClassification

            more = {"local_files_only": True, "trust_remote_code": False}
            model = AutoModelForImageClassification.from_pretrained(self.folder, use_safetensors=True, **more)
            processor = AutoImageProcessor.from_pretrained(self.folder, **more)
        except Exception as error:  # noqa: BLE001 - transformers raises whatever its parts raise
            words = str(error).splitlines()[0] if str(error) else ""
            raise InputError(
                say(
                    "The image classifier in '%1' cannot be loaded (%2: %3).",
                    self.folder,
                    type(error).__name__,
                    words[:300],
                )
            ) from None
        labels = {int(number): str(label) for number, label in model.config.id2label.items()}
        numbers = [n for n, label in labels.items() if self._is_flagged(label)]
        if not numbers or len(numbers) == len(labels):
            raise InputError(
                say(
                    "The labels of the image classifier in '%1' are %2. "
                    "Name those that are not safe under flagged in the settings of the API.",
                    self.folder,
                    ", ".join(labels.values()),
                )
            )
        return model.eval(), processor, numbers

    def _is_flagged(self, label: str) -> bool:
        if self._wanted:
            return label in self._wanted
        return bool(FLAGGED.search(label)) and not re.search(
            r"\b(not|non|no|un)[ _-]?(nsfw|porn)", label, re.I
        )
