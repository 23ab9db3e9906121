"""What the server says on a node, said again in the page's language."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kleinod_pure.acceleration import calibration
from kleinod_pure.acceleration.attached import Attached, adapt
from kleinod_pure.acceleration.controller import Controller
from kleinod_pure.acceleration.policies.forecast import Forecast
from kleinod_pure.acceleration.policies.policy import RunFacts
from kleinod_pure.acceleration.policies.registry import shorten_run
from kleinod_pure.acceleration.report import RunReport
from kleinod_pure.acceleration.settings import describe as describe_acceleration
from kleinod_pure.base import seams
from kleinod_pure.base.errors import InputError
from kleinod_pure.base.sentences import join, say
from kleinod_pure.base.values import Acceleration, Calibration
from kleinod_pure.faces.pickles import read_pickle
from kleinod_pure.model.choices import LoaderRequest, describe_unused
from kleinod_pure.model.facts import describe, facts_from_sizes, nano_facts
from kleinod_pure.model.nano_words import describe_unknown
from kleinod_pure.model.prompt import PromptReport, warn_of_syntax
from kleinod_pure.sampling.report import Report
from kleinod_pure.sampling.request import SamplingRequest

from tools.shipped import locales

VALUES = ("7", "8.5", "flux-klein.safetensors", "1,024", "x2", "16")


@pytest.fixture
def speak(call) -> Iterator[Callable[[str], Any]]:
    """`speak("zh")` lets the page know a language, and gives its words."""

    def learn(language: str) -> dict[str, str]:
        words = locales.read(language, "main")["kleinod"]
        call("words.js", "learn", words)
        return words

    yield learn
    call("words.js", "learn", {})


@pytest.mark.parametrize("language", locales.LANGUAGES)
def test_every_pattern_is_found_again_with_its_values(call, speak, language: str) -> None:
    words = speak(language)
    patterns = sorted(locales.list_server_texts())
    said = call("sentences.js", "saySentences", "\n".join(str(say(one, *VALUES)) for one in patterns))
    wanted = [str(say(words[one], *VALUES)) for one in patterns]
    wrong = {
        one: got for one, got, want in zip(patterns, said.split("\n"), wanted, strict=True) if got != want
    }
    assert wrong == {}


def test_in_english_nothing_changes(call) -> None:
    text = "4 pictures, 128x128, 0.50 s a step  \nWarning: any, at all"
    assert call("sentences.js", "saySentences", text) == text


def test_what_no_pattern_holds_stays_and_the_rest_is_said(call, speak) -> None:
    speak("de")
    line = "4 pictures, 0.50 USD, a word of the service; already paid"
    assert call("sentences.js", "saySentences", line) == (
        "4 Bilder, 0.50 USD, a word of the service; schon bezahlt"
    )
    nested = "Not used of a b.safetensors: layer.1, layer.2 and 3 more: Klein has no biases."
    assert call("sentences.js", "saySentences", nested) == (
        "Unbenutzt von a b.safetensors: layer.1, layer.2 und 3 weitere: Klein hat keine Bias-Werte."
    )


def list_told() -> Iterator[str]:
    """Lines as nodes show them, of the parts that need no ComfyUI."""
    nano, base = (
        nano_facts(128, 2, 4, 384),
        facts_from_sizes(3072, 5, 20, 7680, file_name="klein-4b.safetensors"),
    )
    yield from (*describe(nano), *describe(base), *describe(facts_from_sizes(512, 1, 1, 512)))
    yield describe_unused(LoaderRequest("klein-nano", vae="flux2-vae.safetensors"))
    yield from describe_unknown("positive", ["portrait", "woman"])
    yield from describe_unknown("positive", [f"word{i}" for i in range(40)])
    yield from warn_of_syntax(
        "a (red:1.3) fox <lora:ink:1> ((big)) embedding:easy BREAK --ar 3:2", "positive"
    )
    yield PromptReport("positive", 40).describe()
    yield PromptReport("negative", 600, "and a blue bird, far away").describe()
    yield Report(SamplingRequest(seed=3, results=4), (128, 128), from_picture=True).headline
    yield from (
        Report(SamplingRequest(results=2), (64, 64), asked=9, warnings=(say("Warning: %1", "x"),))
        .text()
        .split("\n")
    )
    yield from describe_acceleration(Acceleration("high")).split("\n")
    yield from describe_acceleration(Acceleration("none", calibration=Calibration("my own"))).split("\n")
    sigmas = tuple(1 - i / 28 for i in range(29))
    windowed = Acceleration("high", cache_start_step=20)
    for settings, guidance in ((Acceleration("highest"), 10.0), (windowed, 4.0)):
        run = RunFacts(sigmas, regular=True, guidance=guidance)
        policy = Forecast(settings, run)
        policy._spared = int(guidance) - 3
        controller = Controller(settings, run)
        controller.disable(say("this sampler calls the model more than once a step"))
        notes = [*policy.notes(), *controller.report.notes, *adapt(settings, Attached(state=("APG",)))[1]]
        yield RunReport("forecast", 28, notes=notes).line()
    yield from list_refusals()
    noisy = RunFacts(tuple(0.9 * 0.9**i for i in range(28)), regular=True, noise_path=True)
    yield shorten_run(Acceleration("high"), noisy)[2]


def list_refusals() -> Iterator[str]:
    """Why a feature is off, and why files are not read, made of several sentences and of errors within."""
    gone = list_missing(seams)
    assert len(gone) > 20
    yield from gone
    for read in (
        lambda: calibration.read("my own", '{"version": 9}'),
        lambda: calibration.read("my own", broken_calibration()),
        lambda: calibration.load("my own", Path("no such folder")),
        lambda: calibration.check_name(".x"),
        lambda: read_pickle(b"\x80\x02cos\nsystem\n."),
        lambda: read_pickle(b"."),
        lambda: read_pickle(b"\xff"),
    ):
        with pytest.raises(InputError) as refused:
            read()
        yield str(say('detector "%1" cannot be used: %2', "bbox/a b.pt", refused.value))


def list_missing(of: Any) -> list[str]:
    """What stands on nodes with a ComfyUI that has none of the names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of, "find", lambda place: of.Absent(place.replace(":", ".")))
        of.missing.cache_clear()
        said = of.report()
    of.missing.cache_clear()
    with pytest.raises(of.MissingSeam) as absent:
        of.Absent("comfy.sd.VAE")()
    return [*said, str(absent.value)]


def broken_calibration() -> str:
    table = {name: 0 if name == "guidance" else "x" for name in ("kind", "model", "guidance")}
    rows = ("sigmas", "computed", "levels", "weights", "errors", "rule_errors")
    table |= {name: [] for name in rows}
    return json.dumps({"version": 2, "tea_coefficients": [], "tea_limit": 0, "tables": [table]})


@pytest.mark.parametrize("language", ["zh", "ja", "ko"])
def test_lines_of_nodes_are_said_whole(call, speak, language: str) -> None:
    """A line that keeps three English words in a row was not found."""
    speak(language)
    lines = list(dict.fromkeys(list_told()))
    said = call("sentences.js", "saySentences", "\n".join(lines)).split("\n")
    quoted = r'["\u201c\u201d\u00ab\u00bb\'].*?["\u201c\u201d\u00ab\u00bb\']'
    left = [line for line in said if re.search(r"[a-z]+ [a-z]+ [a-z]+", re.sub(quoted, "", line))]
    assert left == []


def test_parts_are_joined_as_the_page_cuts_them() -> None:
    assert join(", ", [say("%1 pictures", 2), say("seed %1", 7)]) == "2 pictures, seed 7"


def test_a_label_is_no_part_of_a_value(call, speak) -> None:
    words = speak("zh")
    painted = str(call("sentences.js", "saySentences", "face 1: painted, 62x59 px at 19/22"))
    assert painted.startswith(f"\u4eba\u8138 1: {words['painted']}, 62x59 px")
    shares = call("sentences.js", "saySentences", "weight 1: 34 of 34 modules")
    assert shares.startswith(f"{say(words['weight %1'], 1)}: ")


def test_a_part_may_begin_a_line_and_quotes_hold_anything(call, speak) -> None:
    words = speak("zh")
    part = "another file than when the workflow was saved (other sha256)"
    assert call("sentences.js", "saySentences", part.capitalize() + ".") == words[part] + "."
    asked = '%1: no prompt was given, so the %2 were asked for "%3"'
    given = ("positive", "faces", "The face of image 1: same person, same light.")
    said = call("sentences.js", "saySentences", str(say(asked, *given)))
    assert given[2] in said and "prompt was given" not in said
