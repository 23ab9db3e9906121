"""`run.py bench gpu`: everything that only a graphics card can show, in one command and under eight minutes.

Pictures of klein-nano (does every local node work there, and is the same what ought to be the same), then a
4B of random weights at 1024x1024: what a step costs against the card's own speed, what skipping and deciding
cost, how long a changed LoRA takes, in bf16 and fp8. Each with ComfyUI's weights kept whole and with its
dynamic memory, which is what it does on NVIDIA cards unless told otherwise; at last the same with compiled
blocks. Each way of keeping weights is a process of its own: one that dies takes nothing else along. Random
weights draw nothing: they tell times and memory, never quality.

--json FILE keeps the rows, --page FILE writes a page which a stranger can read. Without a card: `--cpu`, the
same parts with a small network, which shows that each of them runs and what is the same without a card.
Dynamic memory alone is a card's; tests/model/test_dynamic_loading.py drives it as far as a processor can.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tools.bench.report import Row, describe_machine
from tools.launch.environment import ROOT

# (ComfyUI's way with weights, sections, share of the time)
RUNS = (
    ("whole", ("pictures", "steps"), 0.42),
    ("dynamic", ("pictures", "steps"), 0.42),
    ("whole", ("compiled",), 0.16),
)
# Compiling the 25 blocks takes a core half as long as all the rest: 26 minutes in all on two crowded cores.
RUNS_WITHOUT_A_CARD = (("whole", ("pictures", "steps"), 0.6), ("whole", ("compiled",), 0.6))
SECONDS, SECONDS_WITHOUT_A_CARD = 450, 2400
MEMORY = {
    "whole": "weights kept whole in the card's memory (--disable-dynamic-vram)",
    "dynamic": "dynamic memory, ComfyUI's default on NVIDIA cards",
}
TITLES = {
    "start": "Start",
    "pictures": "klein-nano: does everything work, and is the same the same",
    "steps": "{model}: steps, memory, LoRAs, fp8",
    "compiled": "The same with each block compiled",
}
FULL = "A 4B of random weights at 1024x1024"
SMALL = "A network of random weights with the 4B's 25 blocks, 128 wide, at 128x128"


def run(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="run.py bench gpu")
    parser.add_argument("--cpu", action="store_true", help="a small network on the processor")
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"for all of it (default {SECONDS}, with --cpu {SECONDS_WITHOUT_A_CARD})",
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="also write a page in Markdown to FILE")
    parser.add_argument("--log", type=Path, metavar="FILE", help="where rows are kept as they come")
    options = parser.parse_args(argv)
    runs = RUNS_WITHOUT_A_CARD if options.cpu else RUNS
    seconds = options.seconds or (SECONDS_WITHOUT_A_CARD if options.cpu else SECONDS)
    busy = _measure_load()
    with tempfile.TemporaryDirectory() as folder:
        log = options.log or Path(folder) / "gpu.jsonl"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("", encoding="utf-8")
        began = time.monotonic()
        for memory, sections, share in runs:
            left = seconds - (time.monotonic() - began)
            allowed = min(left, share * seconds * 1.25)
            if allowed > 10:
                _run_sections("cpu" if options.cpu else "gpu", memory, allowed, log, sections)
        entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    if options.page is not None:
        options.page.parent.mkdir(parents=True, exist_ok=True)
        took = f"{(time.monotonic() - began) / 60:.0f} minutes"
        facts = {"took": took, "busy": " and ".join(filter(None, (busy, _measure_load())))}
        page = write_page(entries, describe_machine() | facts, small=options.cpu)
        options.page.write_text(page, encoding="utf-8")
        print(f"\nThe page: {options.page}")
    return read_rows(entries)


def _measure_load() -> str:
    """How many processes wanted a core in the last five minutes; "" where the system does not say."""
    return f"{os.getloadavg()[1]:.1f}" if hasattr(os, "getloadavg") else ""


def _run_sections(device: str, memory: str, seconds: float, log: Path, sections: Iterable[str]) -> None:
    command = [
        sys.executable,
        "-m",
        "tools.bench._gpu_sections",
        device,
        memory,
        str(0.85 * seconds),
        str(log),
    ]
    child = subprocess.Popen([*command, *sections], cwd=ROOT, env=dict(os.environ))
    try:
        code = child.wait(seconds)
        why = f"the process ended with code {code}" if code not in (0, 1) else ""
    except subprocess.TimeoutExpired:
        why = f"stopped after {seconds:.0f} s"
    finally:
        child.kill()
        child.wait()
    if why:
        entry = {"section": "start", "memory": memory, "failed": " and ".join(sections), "why": why}
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def read_rows(entries: Iterable[dict]) -> list[Row]:
    """The rows with their section and way of memory in the name; a failure is a row that reached no goal."""
    rows = []
    for entry in entries:
        where = f"{entry['memory']}: "
        if "row" in entry:
            fields = {key: value for key, value in entry["row"].items() if key != "met"}
            rows.append(Row(**{**fields, "name": where + fields["name"]}))
        elif "failed" in entry:
            rows.append(Row(f"{where}{entry['failed']} failed", float("nan"), "", None, 0, "== 0"))
    return rows


def _introduce(machine: dict[str, object], small: bool) -> list[str]:
    software = f"PyTorch {machine.get('torch')}, Python {machine.get('python')}, {machine.get('system')}"
    if not small:
        return [
            "# Kleinod on a graphics card", "", f"{machine.get('device')}, {software}.", "",
            "Made by `python3 run.py bench gpu`. Two models: klein-nano, the toy inside the pack, for what "
            "must work and agree; and a network of the 4B's size with random weights, which draws nothing "
            "but costs what the 4B costs. So the numbers speak of time, memory and sameness, never of "
            "pictures' quality.", "",
        ]  # fmt: skip
    return [
        "# The graphics card's bench without a card", "",
        f"{machine.get('processor')}, {machine.get('threads')} thread(s), {software}.", "",
        "Made by `python3 run.py bench gpu --cpu`, at small size: it shows that every part of the bench "
        "runs, and what must be the same is the same. Two models: klein-nano, the toy inside the pack; and a "
        "network with the 4B's 25 blocks and random weights, but 128 wide instead of 3072 and at 128x128 "
        "pixels instead of 1024x1024. **No time here says anything about a graphics card**: blocks this "
        "narrow cost little more than calling them, so a share of a step is larger here than on real "
        "weights. Left out, as only a card has them: dynamic memory, bfloat16, and how much memory is used.",
        "", *_tell_load(machine),
    ]  # fmt: skip


def _tell_load(machine: dict[str, object]) -> list[str]:
    if not machine.get("busy"):
        return []
    return [
        f"One run of {machine['took']} on {os.cpu_count()} cores that, at its start and at its end, "
        f"{machine['busy']} processes wanted (the system's load). Where that is more than the cores, other "
        "programs ran beside it: times then say little, and shares of a step only within their spread. "
        "`run.py bench overhead` on an idle machine is the number to go by.", "",
    ]  # fmt: skip


def write_page(entries: list[dict], machine: dict[str, object], small: bool = False) -> str:
    """Markdown: what was run on what, the failures first, then a table a section. small: without a card."""
    rows = read_rows(entries)
    missed = [row for row in rows if row.met is False]
    lines = [
        *_introduce(machine, small),
        f"Goals: {sum(row.met is True for row in rows)} reached, {len(missed)} missed.", "",
    ]  # fmt: skip
    failures = [entry for entry in entries if "failed" in entry or "skipped" in entry]
    if missed or failures:
        lines += ["## What was missed, failed or left out", ""]
        lines += [
            f"- {row.name}: {_number(row)}, wanted {row.goal}" for row in missed if row.value == row.value
        ]
        for entry in failures:
            what = entry.get("failed") or entry.get("skipped")
            lines.append(f"- {entry['memory']}: {what}: {entry.get('why', 'left out, the time was over')}")
        if small:  # there is one way of keeping weights, so none need be named
            lines = [line.replace("- whole: ", "- ", 1) for line in lines]
        lines.append("")
    for section, title in TITLES.items():
        for memory, way in MEMORY.items():
            own = [
                e["row"] for e in entries if "row" in e and (e["section"], e["memory"]) == (section, memory)
            ]
            if not own:
                continue
            lines += [f"## {title.format(model=SMALL if small else FULL)}", ""]
            lines += [] if small else [f"With {way}.", ""]
            lines += ["| what | value | goal |", "|---|--:|---|"]
            for fields in own:
                row = Row(**{key: value for key, value in fields.items() if key != "met"})
                goal = "" if row.goal is None else f"{'reached' if row.met else '**missed**'}: {row.goal}"
                lines.append(f"| {row.name} | {_number(row)} | {goal} |")
            lines.append("")
    return "\n".join(lines)


def _number(row: Row) -> str:
    spread = f" \N{PLUS-MINUS SIGN} {row.spread:.2g}" if row.spread and row.n > 1 else ""
    return f"{row.value:.4g}{spread} {row.unit}".strip()
