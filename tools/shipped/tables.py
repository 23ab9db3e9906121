"""`nodes/model/nano_weights/fitted_tables.json`: what Klein Calibrate fits to klein-nano.

Made by Klein Calibrate's own code, on prompts that the acceleration bench keeps for setting dials and never
measures. For real weights nothing is shipped: nobody measured them. Anew with new weights; some minutes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tools.launch.environment import ROOT
from tools.launch.pack import enable_comfyui, load_pack
from tools.nano.exam import paper

PAPER = 9002
PROMPTS = 8
STEPS = 28
GUIDANCES = (4.0,)


def main() -> int:
    enable_comfyui(Path(os.environ["COMFYUI_PATH"]))
    load_pack(ROOT)
    import torch
    from kleinod.nodes.acceleration.calibration_files import SHIPPED
    from kleinod.nodes.model.choices import NANO, LoaderRequest
    from kleinod.nodes.model.engine import load_set
    from kleinod.nodes.sampling.request import SamplingRequest
    from kleinod.nodes.study.calibrating import calibrate, list_subjects

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    nano = load_set(LoaderRequest(NANO))
    prompts = [question.prompt for question in paper(PAPER) if question.kind == "single"]
    negative = nano.clip.encode_from_tokens_scheduled(nano.clip.tokenize(""))
    SHIPPED.unlink(missing_ok=True)
    for guidance in GUIDANCES:
        request = SamplingRequest(128, 128, STEPS, guidance, PAPER)
        subjects, notes = list_subjects(
            nano.model, negative, nano.clip, "\n".join(prompts[:PROMPTS]), PROMPTS, request.seed
        )
        _, report = calibrate(
            nano.model, subjects, negative, request, SHIPPED.stem, notes, folder=SHIPPED.parent
        )
        print(report, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
