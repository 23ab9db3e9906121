"""Plain runs of klein-nano that teach acceleration, from the sampler to the file and back."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import pytest
import torch
from kleinod.nodes.acceleration import learning_files
from kleinod.nodes.acceleration.fingerprint import read_fingerprint
from kleinod.nodes.acceleration.learning import Kind, Lessons, Tried
from kleinod.nodes.acceleration.policies.forecast import make_plan
from kleinod.nodes.acceleration.policies.policy import RunFacts
from kleinod.nodes.base.acceleration import SKIPPED, FittedTable
from kleinod.nodes.base.files import write_json
from kleinod.nodes.base.values import Acceleration
from kleinod.nodes.model.choices import NANO, LoaderRequest
from kleinod.nodes.model.engine import load_set
from kleinod.nodes.sampling.engine import sample_pictures
from kleinod.nodes.sampling.learning import PlainRun
from kleinod.nodes.sampling.request import SamplingRequest

STEPS = 9
PROMPTS = ("a fox on a white background", "a bus on a pink background", "a cake on a blue background")
PROMPTS += ("a frog on an orange background",)


@pytest.fixture(scope="module")
def nano() -> Any:
    return load_set(LoaderRequest(NANO))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    return tmp_path


def paint(nano: Any, text: str, scheduler: str = "Default", model: Any = None, **settings: Any) -> Any:
    positive, negative = (
        nano.clip.encode_from_tokens_scheduled(nano.clip.tokenize(one)) for one in (text, "")
    )
    request = SamplingRequest(128, 128, settings.pop("steps", STEPS), 4.0, 99, scheduler)
    with torch.inference_mode():
        return sample_pictures(model or nano.model, positive, negative, nano.vae, request, **settings)


def test_off_nothing_is_computed_or_written_and_on_the_picture_is_the_same(
    nano: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PlainRun, "__init__", lambda *_: pytest.fail("a run was watched"))
        off = paint(nano, PROMPTS[0])
        assert not list(folder.rglob("*"))
        learning_files.switch_learning(True)
        learning_files.switch_learning(False)
        paint(nano, PROMPTS[0])
        assert not learning_files.lessons_folder().exists()
    learning_files.switch_learning(True)
    on = paint(nano, PROMPTS[0])
    assert torch.equal(on.latent["samples"], off.latent["samples"])
    assert "different prompt number 1 of its kind" in on.report.text()


def test_four_prompts_choose_steps_and_one_prompt_four_times_teaches_once(
    nano: Any, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learning_files.switch_learning(True)
    for _ in range(4):
        again = paint(nano, PROMPTS[0])
    assert "this prompt has taught already" in again.report.text()
    (lessons,) = learning_files.list_lessons()
    assert lessons.seen == len(lessons.grams) == 1 and not lessons.tried
    for text in PROMPTS[1:]:
        paint(nano, text)
    learning_files.wait_until_chosen()
    (lessons,) = learning_files.list_lessons(read_fingerprint(nano.model))
    assert lessons.seen == 4 and lessons.tried
    (told,) = learning_files.tell_state()["learned"]
    for one in lessons.tried:
        assert one.describe() in told
        assert one.wins or "nothing better than the rule was found in 4 runs" in one.describe()
    assert PROMPTS[0].encode() not in b"".join(file.read_bytes() for file in folder.rglob("*.json"))

    # Damage: said, and learned anew.
    (file,) = learning_files.lessons_folder().glob("*.json")
    file.write_text(file.read_text("utf-8")[:500], "utf-8")
    with caplog.at_level(logging.WARNING):
        paint(nano, PROMPTS[0])
    assert "learned anew" in caplog.text and learning_files.list_lessons()[0].seen == 1
    learning_files.erase_lessons()
    assert not list(learning_files.lessons_folder().iterdir())
    assert learning_files.tell_state() == {"enabled": True, "learned": []}


def test_what_cannot_teach_does_not(nano: Any, folder: Path) -> None:
    learning_files.switch_learning(True)
    paint(nano, PROMPTS[0], acceleration=Acceleration("high"))
    paint(nano, PROMPTS[0], "DPM++ 2M")
    paint(nano, PROMPTS[0], steps=4)
    patched = nano.model.clone()
    patched.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
    paint(nano, PROMPTS[0], model=patched)
    start = paint(nano, PROMPTS[0], steps=4).latent["samples"]
    paint(nano, PROMPTS[0], latent={"samples": start})

    stopped = nano.model.clone()
    calls: list[int] = []

    def stop(executor: Any, *args: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            comfy.model_management.interrupt_current_processing(True)
        comfy.model_management.throw_exception_if_processing_interrupted()
        return executor(*args, **named)

    kind = next(iter(stopped.wrappers), "diffusion_model")
    stopped.add_wrapper_with_key(kind, "torch.compile", stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        paint(nano, PROMPTS[0], model=stopped)
    assert len(calls) == 5 and not learning_files.lessons_folder().exists()


def test_learning_that_fails_leaves_the_run_alone(
    nano: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    learning_files.switch_learning(True)
    learning_files.lessons_folder().parent.mkdir(parents=True, exist_ok=True)
    learning_files.lessons_folder().write_text("a file in its way")
    with caplog.at_level(logging.WARNING):
        made = paint(nano, PROMPTS[0])
    assert torch.isfinite(made.latent["samples"]).all() and "teaches acceleration nothing" in caplog.text


def keep(kind: Kind, won: bool) -> None:
    run = RunFacts(kind.sigmas, regular=True, guidance=kind.guidance)
    plan = make_plan(Acceleration("high"), run)
    computed = tuple(step for step, skipped in enumerate(plan.reuse) if not skipped)
    moved = tuple(sorted({*computed} - {computed[1]} | {computed[1] - 1}))
    levels = (*(kind.sigmas[step] for step in moved), 0.0)
    weights = (((1.0,),),) * len(moved)
    errors = (0.01, 0.1)[not won]
    table = FittedTable(
        SKIPPED, kind.model, kind.guidance, kind.sigmas, moved, levels, weights, (errors,), (0.05,), 4
    )
    lessons = Lessons(kind, seen=4, tried=(Tried(table, steady=True),))
    write_json(learning_files.lessons_folder() / kind.file_name, lessons.data())


def test_runs_go_by_steps_that_won_while_learning_is_on(nano: Any, folder: Path) -> None:
    learning_files.switch_learning(True)
    steps = 12
    plain = paint(nano, PROMPTS[0], steps=steps)
    (lessons,) = learning_files.list_lessons()
    rule = paint(nano, PROMPTS[0], steps=steps, acceleration=Acceleration("high")).runs[0]
    keep(lessons.kind, won=True)
    learned = paint(nano, PROMPTS[0], steps=steps, acceleration=Acceleration("high")).runs[0]
    told = f"mask: learned from 4 of your own uncached runs ({steps} steps, guidance 4)"
    assert told in learned.notes and rule.pattern != learned.pattern and plain.runs[0].computed == steps
    keep(lessons.kind, won=False)
    assert (
        "mask: rule" in paint(nano, PROMPTS[0], steps=steps, acceleration=Acceleration("high")).runs[0].notes
    )
    keep(lessons.kind, won=True)
    learning_files.switch_learning(False)
    assert (
        "mask: rule" in paint(nano, PROMPTS[0], steps=steps, acceleration=Acceleration("high")).runs[0].notes
    )


def test_kinds_of_runs_are_bounded_and_the_oldest_go_first(
    nano: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_files, "MOST_KINDS", 2)
    learning_files.switch_learning(True)
    conditioning = [[torch.ones(1, 2, 3), {}]]
    for steps in (8, 9, 10):
        sigmas = tuple(1 - i / steps for i in range(steps + 1))
        gram = torch.eye(steps + 1, dtype=torch.float64)
        learning_files.teach(Kind("0123456789abcdef", 4.0, sigmas), conditioning, gram)
    assert sorted(lessons.kind.steps for lessons in learning_files.list_lessons()) == [9, 10]
