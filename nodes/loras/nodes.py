"""Klein LoRA Stack: LoRA files onto a MODEL, with a truthful report.

The rows are ONE multiline text widget (`nodes/loras/rows.py` has its grammar), not a widget a row. A text
saves, loads, copies, passes through subgraphs and the API as one value in either renderer, its length is
free, and a person can read and write it. Growing inputs (`io.Autogrow`) turn widgets into sockets, and a
fixed number of rows would put some fifty widgets on the node. Beside it stands one ordinary row of plain
widgets (`lora`, `weight`, `stage`), so that without any script of ours a LoRA is still picked from a list;
the script draws rows over the text and reads the list of files from the `lora` combo.
"""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from ..base import sockets
from ..base.field_inputs import make_input
from ..base.notices import reports_errors, show
from ..base.values import BOUNDARY_AT, BOUNDARY_UNIT, LORA_STAGE, LORA_WEIGHT, Loras
from . import engine, library
from .request import APPLICATIONS, INTO, MISSING_POLICIES, NO_LORA, StackRequest


class KleinodLoraStack(io.ComfyNode):
    """LoRA rows to MODEL and Loras."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KleinodLoraStack",
            display_name="Klein LoRA Stack",
            category="Kleinod",
            description="Applies any number of LoRAs of any format to a Klein model and reports what of each "
            "file was used. Chain several, or feed Klein Runware with the loras output.",
            search_aliases=[
                "lora loader",
                "load lora",
                "power lora loader",
                "lora stacker",
                "lokr",
                "dora",
                "loha",
                "loraloadermodelonly",
                "multi lora",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The Klein to change. Leave it open to only collect rows for another node.",
                ),
                io.String.Input(
                    "rows",
                    multiline=True,
                    default="",
                    placeholder="style.safetensors 0.8\nface.safetensors 1 low\n# a line each: file weight "
                    "high|low off air=id",
                    tooltip="One LoRA a line: its file in models/loras, then a weight from -4 to 4 (1 if "
                    "left out), high or low for one stage only, off to keep it without using it, and "
                    "air=id for Runware. <lora:name:0.8> is understood too.",
                ),
                io.Combo.Input(
                    "lora",
                    options=[NO_LORA, *library.list_files()],
                    default=NO_LORA,
                    tooltip="One more LoRA, picked from models/loras; it comes after the rows.",
                ),
                make_input(LORA_WEIGHT),
                make_input(LORA_STAGE),
                io.Combo.Input(
                    "missing_files",
                    options=list(MISSING_POLICIES),
                    default=MISSING_POLICIES[0],
                    tooltip="What happens when a row's file is not there, under its name or under another "
                    "one with the same sha256.",
                ),
                make_input(BOUNDARY_UNIT),
                make_input(BOUNDARY_AT),
                io.Combo.Input(
                    "apply",
                    options=list(APPLICATIONS),
                    default=INTO,
                    advanced=True,
                    tooltip="into the weights: no cost while sampling. beside the weights: a changed weight "
                    "takes effect at once and quantised models keep their precision, but every step takes a "
                    "little longer. Rows with a stage always run beside the weights.",
                ),
                sockets.LoraStack.Input(
                    "lora_stack",
                    optional=True,
                    tooltip="A LORA_STACK of another pack; it comes before the rows.",
                ),
                sockets.Loras.Input(
                    "loras",
                    optional=True,
                    tooltip="Rows of another Klein LoRA Stack; they come before this node's. What the "
                    "model already carries is not applied twice.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with these LoRAs, for the sampler."),
                sockets.Loras.Output(display_name="loras", tooltip="All rows, for Klein Runware."),
                sockets.LoraStack.Output(
                    display_name="lora_stack",
                    tooltip="The rows that act, as (name, weight, weight); other packs know no stages.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="For each file: modules applied, rank, alpha, what was not used and why; and the "
                    "rows with their sha256, to paste back.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        rows: str | None = "",
        lora: str | None = NO_LORA,
        missing_files: str | None = MISSING_POLICIES[0],
    ) -> bool | str:
        return library.check_at_queue_time(rows, lora, missing_files)

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> str:
        return library.fingerprint(inputs.get("rows"), inputs.get("lora"))

    @classmethod
    @reports_errors()
    def execute(
        cls,
        model: Any = None,
        rows: str = "",
        lora: str = NO_LORA,
        weight: float = LORA_WEIGHT.default,
        stage: str = LORA_STAGE.default,
        missing_files: str = MISSING_POLICIES[0],
        stage_boundary: str = BOUNDARY_UNIT.default,
        boundary_at: float = BOUNDARY_AT.default,
        apply: str = INTO,
        lora_stack: Any = None,
        loras: Loras | None = None,
    ) -> io.NodeOutput:
        request = StackRequest.read(
            rows, lora, weight, stage, missing_files, stage_boundary, boundary_at, apply
        )
        stacked = engine.apply_stack(model, request, lora_stack, loras)
        show(stacked.headline)
        return io.NodeOutput(stacked.model, stacked.loras, stacked.lora_stack, stacked.report)
