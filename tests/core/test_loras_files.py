"""Finding files again, remembering their hashes, keeping some in memory, and what they say of themselves."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import weakref
from pathlib import Path

import pytest
import torch
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from kleinod_pure.base.doors import Doors
from kleinod_pure.base.safetensors import read_header
from kleinod_pure.base.values import LoraRow
from kleinod_pure.loras.hashes import BOOK, HashBook
from kleinod_pure.loras.info import describe_file, find_picture, find_trigger_words
from kleinod_pure.loras.plan import plan_file
from kleinod_pure.loras.routes import add_routes
from kleinod_pure.loras.search import LoraIndex, Unhashed, find_all
from kleinod_pure.loras.targets import Architecture
from kleinod_pure.loras.tensors import LoraFile, OpenFiles, build_parts, load_plan
from safetensors.torch import save_file

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def book(tmp_path: Path) -> HashBook:
    return HashBook(tmp_path / "user")


@pytest.fixture
def index(tmp_path: Path, book: HashBook) -> LoraIndex:
    files = {}
    for name, content in (
        ("style.safetensors", b"style"), ("people/anna.safetensors", b"anna"),
        ("old/twin.safetensors", b"twin 1"), ("new/twin.safetensors", b"twin 2"),
    ):  # fmt: skip
        path = tmp_path / "loras" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        files[name.replace("/", "\\") if name.startswith("people") else name] = str(path)
    return LoraIndex(files, book)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (LoraRow("style.safetensors"), "style.safetensors"),
        (LoraRow("style"), "style.safetensors"),
        (LoraRow("people/anna.safetensors"), "people/anna.safetensors"),
        (LoraRow("anna"), "people/anna.safetensors"),
        (LoraRow("moved/elsewhere/ANNA.safetensors"), "people/anna.safetensors"),
        (LoraRow("renamed.safetensors", sha256=sha(b"anna")), "people/anna.safetensors"),
        (LoraRow("twin.safetensors", sha256=sha(b"twin 2")), "new/twin.safetensors"),
        (LoraRow("style.safetensors", sha256=sha(b"anna")), "people/anna.safetensors"),
        (LoraRow("style.safetensors", sha256=sha(b"lost")), "style.safetensors"),
    ],
)
def test_rows_find_their_files(index: LoraIndex, row: LoraRow, name: str) -> None:
    found = index.find(row)
    assert found.name == name and Path(found.path).is_file()
    plain = row.file.removesuffix(".safetensors") == name.removesuffix(".safetensors")
    assert bool(found.note) == (not plain or row.sha256 == sha(b"lost"))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (LoraRow("twin.safetensors"), "could be any of new/twin.safetensors, old/twin.safetensors"),
        (LoraRow("gone.safetensors"), '"gone.safetensors" is not in models/loras. Put the file there'),
        (LoraRow("stile.safetensors"), "Did you mean style.safetensors?"),
        (LoraRow("gone.safetensors", sha256=sha(b"lost")), "nor any file with its sha256"),
        (LoraRow("../../etc/passwd"), "is not in models/loras"),
        (LoraRow("old.ckpt"), "cannot carry code"),
    ],
)
def test_rows_without_a_file(index: LoraIndex, row: LoraRow, words: str) -> None:
    with pytest.raises(ValueError, match="LoRA row 2") as caught:
        find_all([LoraRow("style"), row], index.find, skips_missing=False)
    assert words in str(caught.value)
    found, notes = find_all([LoraRow("style"), row], index.find, skips_missing=True)
    assert [place is not None for place in found] == [True, False]
    assert "Row 2 skipped" in notes[0] and words in notes[0]


def test_rows_that_do_nothing_look_for_nothing() -> None:
    def find(row: LoraRow) -> None:
        raise AssertionError(row)

    rows = [LoraRow("a", 0.0), LoraRow("b", enabled=False), LoraRow("", air="a:b")]
    assert find_all(rows, find, skips_missing=False) == ([None, None, None], [])


def test_hashing_waits_where_it_would_take_long(index: LoraIndex) -> None:
    row = LoraRow("renamed", sha256=sha(b"anna"))
    with pytest.raises(Unhashed):
        index.find(row, max_bytes=6)
    assert index.find(row).name == "people/anna.safetensors"
    assert index.find(row, max_bytes=0).name == "people/anna.safetensors"  # remembered


def test_hashes_are_computed_once_and_again_after_a_change(tmp_path: Path, book: HashBook) -> None:
    path, reads = tmp_path / "a.safetensors", []
    path.write_bytes(b"first")
    watch = lambda done, size: reads.append((done, size))  # noqa: E731
    assert book.find(path, watch) == book.find(path, watch) == sha(b"first")
    assert reads == [(5, 5)]
    assert HashBook(tmp_path / "user").remembered(path) == sha(b"first")
    path.write_bytes(b"other")
    os.utime(path, ns=(1, 1))
    assert book.remembered(path) == ""
    assert book.find(path, watch) == sha(b"other") and len(reads) == 2


def test_a_spoilt_book_costs_nothing_but_time(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"first")
    (tmp_path / "user").mkdir()
    for spoilt in ("{", "[1]", '{"x": 1, "y": ["a", 1, 2]}', "[" * 100_000):
        (tmp_path / "user" / BOOK).write_text(spoilt)
        assert HashBook(tmp_path / "user").find(path) == sha(b"first")
    assert list(json.loads((tmp_path / "user" / BOOK).read_text())) == [str(path)]


def test_hashing_can_be_stopped(tmp_path: Path, book: HashBook) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"first")

    def stop(done: int, size: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        book.find(path, stop)
    assert book.remembered(path) == ""


# --- memory

SMALL = Architecture({"img_in": (8, 4), "double_blocks.0.img_attn.proj": (8, 8)})


def write_small(path: Path, size: int = 2, **tensors: torch.Tensor) -> str:
    name = "double_blocks.0.img_attn.proj"
    own = {f"{name}.lora_A.weight": torch.ones(size, 8), f"{name}.lora_B.weight": torch.ones(8, size)}
    save_file(own | tensors, path)
    return str(path)


def load(files: OpenFiles, path: str) -> LoraFile:
    file = files.open(path, Path(path).name)
    load_plan(file, plan_file(file.header, SMALL))
    return file


def test_files_in_use_are_shared_and_go_with_their_last_user(tmp_path: Path) -> None:
    path, files = write_small(tmp_path / "a.safetensors"), OpenFiles()
    first = load(files, path)
    assert load(files, path) is first
    gone = weakref.ref(first)
    del first
    assert gone() is None
    assert len(load(files, path).tensors) == 2


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    files = OpenFiles()
    first = load(files, write_small(tmp_path / "a.safetensors"))
    second = load(files, write_small(tmp_path / "a.safetensors", size=4))
    assert first is not second
    assert build_parts(second, plan_file(second.header, SMALL), 1.0)[0][1].tensors[0].shape == (8, 4)


def test_only_what_is_used_is_read(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.safetensors", unrelated=torch.full((4,), float("nan")))
    assert len(load(OpenFiles(), path).tensors) == 2


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    name = "double_blocks.0.img_attn.proj"
    spoilt = torch.ones(8, 2)
    spoilt[3, 1] = float("nan")
    path = str(tmp_path / "a.safetensors")
    save_file({f"{name}.lora_A.weight": torch.ones(2, 8), f"{name}.lora_B.weight": spoilt}, path)
    with pytest.raises(ValueError, match="values that are not numbers"):
        load(OpenFiles(), path)


# --- what a file says


def write_told(folder: Path, **metadata: str) -> str:
    name = "diffusion_model.double_blocks.0.img_attn.proj"
    path = folder / "told.safetensors"
    tensors = {f"{name}.lora_A.weight": torch.zeros(16, 3072), f"{name}.lora_B.weight": torch.zeros(3072, 16)}
    save_file(tensors | {f"{name}.alpha": torch.tensor(8.0)}, path, metadata)
    return str(path)


def test_facts_of_the_file_itself(tmp_path: Path) -> None:
    tags = {"10_anna": {"anna woman": 20, "smiling": 12, "hat": 1}}
    path = write_told(tmp_path, **{"modelspec.title": "Anna", "ss_tag_frequency": json.dumps(tags)})
    facts = describe_file(read_header(path), path)
    assert facts["title"] == "Anna" and facts["rank"] == "16" and facts["alpha"] == "8"
    assert facts["base_model"].startswith("FLUX.2 [klein] 4B")
    assert facts["trigger_words"] == ["anna woman", "smiling"]
    assert facts["kind"] == "LoRA" and facts["bytes"] == os.path.getsize(path)


def test_facts_beside_the_file(tmp_path: Path) -> None:
    path = write_told(tmp_path, ss_tag_frequency='{"a": {"unasked": 3}}')
    (tmp_path / "told.civitai.info").write_text(
        json.dumps(
            {"trainedWords": ["anna, woman", 7], "baseModel": "Flux.2", "model": {"name": "Anna of Y"}}
        )
    )
    (tmp_path / "told.json").write_text(json.dumps({"activation text": "anna, red hat", "notes": "mine"}))
    facts = describe_file(read_header(path), path)
    assert facts["title"] == "Anna of Y" and facts["stated_base_model"] == "Flux.2"
    assert facts["description"] == "mine"
    assert facts["trigger_words"] == ["anna, woman", "anna", "red hat"]


def test_spoilt_companions_are_passed_over(tmp_path: Path) -> None:
    path = write_told(tmp_path, ss_tag_frequency="[1]", **{"modelspec.thumbnail": "data:image/png;base64,@@"})
    for name in ("told.civitai.info", "told.metadata.json", "told.json"):
        (tmp_path / name).write_bytes(b"\xff\xfe[[[")
    (tmp_path / "told.png").write_bytes(b"<svg onload=...>")
    assert describe_file(read_header(path), path)["trigger_words"] == []
    assert find_picture(read_header(path), path) is None


def test_words_are_listed_once_and_cut() -> None:
    words = find_trigger_words({"modelspec.trigger_phrase": "a, b,a", "trigger_word": "c" * 900})
    assert words == ["a", "b", "c" * 200]


def test_pictures_beside_and_inside(tmp_path: Path) -> None:
    inside = base64.b64encode(b"\xff\xd8\xff" + bytes(9)).decode()
    path = write_told(tmp_path, **{"modelspec.thumbnail": f"data:image/jpeg;base64,{inside}"})
    assert find_picture(read_header(path), path).kind == "image/jpeg"
    (tmp_path / "told.preview.png").write_bytes(PNG)
    assert find_picture(read_header(path), path) == (PNG, "image/png")


def test_routes_answer_listed_names_and_own_pages_only(tmp_path: Path) -> None:
    path = write_told(tmp_path)
    (tmp_path / "told.png").write_bytes(PNG)
    (tmp_path / "bad.safetensors").write_bytes(b"PK\x03\x04")
    listed = {"told.safetensors": path, "bad.safetensors": str(tmp_path / "bad.safetensors")}
    table = web.RouteTableDef()
    find_hash = lambda path: sha(Path(path).read_bytes())  # noqa: E731
    add_routes(table, Doors(), lambda name: listed.get(name, ""), find_hash, lambda: listed)

    async def ask() -> None:
        app = web.Application()
        app.add_routes(table)
        async with TestClient(TestServer(app)) as client:
            answer = await client.get("/kleinod/loras/info", params={"file": "told.safetensors"})
            facts = await answer.json()
            assert answer.status == 200 and facts["sha256"] == sha(Path(path).read_bytes())
            shown = await client.get(facts["preview"])
            assert (await shown.read(), shown.content_type) == (PNG, "image/png")
            assert shown.headers["X-Content-Type-Options"] == "nosniff"
            for name, words in (
                ("../told.safetensors", "not in models/loras"),
                ("bad.safetensors", "not a safe"),
            ):
                for route in ("info", "preview"):
                    answer = await client.get(f"/kleinod/loras/{route}", params={"file": name})
                    assert answer.status == 400 and words in (await answer.json())["error"]
            for route in ("info", "preview"):
                for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}):
                    address = f"/kleinod/loras/{route}?file=told.safetensors"
                    assert (await client.get(address, headers=headers)).status == 403

    asyncio.run(ask())
