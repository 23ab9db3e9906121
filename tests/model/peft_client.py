"""Runs in PEFT's environment: adapters of toy networks as PEFT makes and scales them.

Argument: a folder with cases.json, a list of {"modules": {name: [rows, columns]}, "kind": "LORA" or "LOKR",
"config": {...}}. Case i is written to i.safetensors (PEFT's own names), what PEFT adds to each weight to
i.delta.safetensors.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import torch
from peft import LoKrConfig, LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
for number, case in enumerate(json.loads((folder / "cases.json").read_text())):
    torch.manual_seed(number)
    network = torch.nn.Module()
    for name, (rows, columns) in case["modules"].items():
        *parents, last = name.split(".")
        place = network
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, torch.nn.Module())
            place = getattr(place, parent)
        place.add_module(last, torch.nn.Linear(columns, rows, bias=False))
    kind = LoraConfig if case["kind"] == "LORA" else LoKrConfig
    model = get_peft_model(network, kind(target_modules=list(case["modules"]), **case["config"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "lokr_" in name:
                parameter.normal_()
    deltas = {
        name: network.get_submodule(name).get_delta_weight("default").detach().contiguous()
        for name in case["modules"]
    }
    state = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(model).items()}
    save_file(state, folder / f"{number}.safetensors")
    save_file(deltas, folder / f"{number}.delta.safetensors")
print(json.dumps({"cases": number + 1}))
