"""Which worker a picture goes to, and what becomes of it when workers are lost; workers that only paint."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kleinod_pure.service.application import MESSAGES
from kleinod_pure.service.drawing import Drawing
from kleinod_pure.service.executor import Cancelled, RunFailed, Unreachable
from kleinod_pure.service.graph import build_graph
from kleinod_pure.service.service import Machine, Service
from kleinod_pure.service.settings import ApiSettings

from cluster.executor import MOST_LOSSES, ClusterExecutor, Drawn, Lost
from cluster.numbers import Journeys, describe_workers
from cluster.roster import Roster
from cluster.routing import RELOAD, Seat, name_set, rank_seats
from cluster.workers_book import WorkersBook
from tests.core.api_stage import DETECTORS, FILES, LORAS, Stage, make_png, make_task


def make_graph(seed: int = 1, **more: Any) -> dict[str, Any]:
    return build_graph(Drawing("a fox", "", 64, 64, (64, 64), 4, 1.0, seed, "klein.safetensors", **more), "t")


def test_a_set_is_the_weights_and_nothing_else() -> None:
    plain = name_set(make_graph())
    assert name_set(make_graph(seed=2, faces={"preset": "custom"}, detector="x")) == plain
    others = {
        name_set(make_graph(loras="a.safetensors 1")),
        name_set(make_graph(loras="a.safetensors 0.5")),
        name_set(make_graph(variant="base")),
        plain,
    }
    assert len(others) == 4


def test_the_holder_comes_before_a_free_worker_until_too_many_wait() -> None:
    def first(waiting: int) -> str:
        return rank_seats([Seat("holder", waiting, ("s",)), Seat("free")], "s")[0].id

    assert [first(waiting) for waiting in range(4)] == ["holder"] * int(RELOAD + 1) + ["free", "free"]


def test_the_set_in_use_comes_before_one_that_is_only_held() -> None:
    seats = [Seat("a", 0, ("s", "t")), Seat("b", 0, ("t", "s"))]
    assert [seat.id for seat in rank_seats(seats, "s")] == ["b", "a"]


def test_a_picture_goes_back_to_who_draws_it_already() -> None:
    seats = [Seat("busy", 3, (), frozenset({"ticket"})), Seat("free", 0, ("s",))]
    assert rank_seats(seats, "s", "ticket")[0].id == "busy"


def test_pictures_routed_at_once_are_spread() -> None:
    roster = Roster()
    roster.learn({"a": {}, "b": {}})
    places = [roster.rank(["a", "b"], "s", str(number))[0] for number in range(4)]
    assert sorted(places) == ["a", "a", "b", "b"]
    for number in range(4):
        roster.note_over(str(number))
    assert roster.rank(["a", "b"], "s", "later")[0] == "a", "nothing of what is over counts"


def test_sets_spread_over_workers_and_stay_there() -> None:
    roster = Roster()
    roster.learn({"a": {}, "b": {}})
    hits = 0
    for number in range(200):
        wanted, ticket = f"set {(number * 7 + number // 3) % 4}", str(number)
        place = roster.rank(["a", "b"], wanted, ticket)[0]
        hits += wanted in roster.held(place)
        roster.note_sent(place, wanted, ticket)
        roster.note_over(ticket)
    assert hits == 196, "each set is read once by one worker"
    assert sorted([len(roster.held("a")), len(roster.held("b"))]) == [2, 2]


def test_a_worker_that_is_gone_takes_what_it_held_along() -> None:
    roster = Roster()
    roster.learn({"a": {}, "b": {}})
    roster.note_sent("a", "s", "1")
    roster.learn({"b": {"name": "b", "held": ["t"]}})
    assert roster.held("a") == () and roster.held("b") == ("t",)
    assert roster.rank(["b", "c"], "s", "2")[0] == "c"


class Hall:
    """Workers that paint the seed; those in `dying` are lost, once they began or, in `queueing`, before.
    hold: what they wait for.
    """

    def __init__(self, *names: str) -> None:
        self.roster = Roster()
        self.names = list(names)
        self.cards = {name: asyncio.Lock() for name in names}
        self.roster.learn(dict.fromkeys(names, {}))
        self.dying: set[str] = set()
        self.queueing: set[str] = set()
        self.hold: asyncio.Event | None = None
        self.begun: list[tuple[str, str]] = []
        self.shared: list[str] = []

    def open(self, ticket: str, wanted: str, graph: Mapping[str, Any], pictures: Mapping[str, Any]) -> Act:
        return Act(self, ticket, wanted, graph)

    def close(self, ticket: str) -> None:
        self.roster.note_over(ticket)

    def share(self, name: str, data: bytes) -> Any:
        self.shared.append(name)
        return data


class Act:
    def __init__(self, hall: Hall, ticket: str, wanted: str, graph: Mapping[str, Any]) -> None:
        self._hall, self._ticket, self._wanted, self._graph = hall, ticket, wanted, graph
        self._ended = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        hall = self._hall
        place = hall.roster.rank(hall.names, self._wanted, self._ticket)[0]
        hall.roster.note_sent(place, self._wanted, self._ticket)
        hall.begun.append((place, self._ticket))
        if place not in hall.queueing:
            yield {"begun": place}
            yield {"progress": 0.5}
        if place in hall.dying:
            hall.names = [name for name in hall.names if name != place]
            hall.roster.learn(dict.fromkeys(hall.names, {}))
            raise Lost("ActorDiedError")
        waits = [asyncio.ensure_future(event.wait()) for event in (hall.hold, self._ended) if event]
        if hall.hold is not None:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for one in waits:
            one.cancel()
        if self._ended.is_set():
            raise Lost("RequestCancelledError")
        async with hall.cards[place]:  # one picture at a time on a card
            await asyncio.sleep(0.005)
        inputs = self._graph["sampler"]["inputs"]
        seed = inputs["seed"]
        picture = make_png((inputs["width"], inputs["height"]), (seed % 251, 0, 7))
        yield {"picture": picture, "seconds": 0.005}

    def cancel(self) -> None:
        self._ended.set()


class Front(Stage):
    def __init__(self, folder: Path, hall: Hall, slots: int = 4) -> None:
        self.drawn: list[str] = []
        self.executor = ClusterExecutor(hall, slots, 30, self._note)
        machine = Machine(lambda: list(FILES), lambda: list(LORAS), lambda: list(DETECTORS))
        service = Service(folder, ApiSettings(enabled=True), self.executor, machine, MESSAGES)
        super().__init__(service, self.executor, service.keys.create(uuid.uuid4().hex))
        self.workers = WorkersBook(service.book)
        service.name_worker = self.workers.find

    def _note(self, drawn: Drawn) -> None:
        self.drawn.append(drawn.worker)
        self.workers.note(drawn.ticket, drawn.worker)


async def colours(front: Front, told: dict[str, Any]) -> list[int]:
    return [(await front.fetch(item["imageURL"])).getpixel((0, 0))[0] for item in told["data"]]


def test_results_are_split_and_come_in_order_with_their_seeds(tmp_path: Path) -> None:
    async def run() -> None:
        hall = Hall("a", "b")
        front = Front(tmp_path, hall)
        await front.service.start()
        status, told = await front.run(numberResults=20, seed=7, outputFormat="PNG")
        assert status == 200
        assert [item["seed"] for item in told["data"]] == list(range(7, 27))
        assert await colours(front, told) == list(range(7, 27))
        places = [place for place, _ in hall.begun]
        assert min(places.count("a"), places.count("b")) >= 8, places
        assert sorted(front.drawn) == sorted(places)
        said = [item["worker"] for item in told["data"]]
        assert sorted(said) == sorted(places), "the answer says who drew what"
        await front.service.close()

    asyncio.run(run())


def test_a_lost_workers_pictures_are_drawn_by_the_others_once(tmp_path: Path) -> None:
    async def run() -> None:
        hall = Hall("a", "b")
        hall.dying.add("a")
        front = Front(tmp_path, hall)
        await front.service.start()
        _, told = await front.run(numberResults=6, seed=1, outputFormat="PNG")
        assert [item["seed"] for item in told["data"]] == [1, 2, 3, 4, 5, 6] and "errors" not in told
        assert await colours(front, told) == [1, 2, 3, 4, 5, 6]
        assert front.drawn == ["b"] * 6
        assert len({item["imageUUID"] for item in told["data"]}) == 6
        await front.service.close()

    asyncio.run(run())


def test_a_picture_that_kills_every_worker_is_not_given_to_a_fourth() -> None:
    async def run() -> None:
        hall = Hall("a", "b", "c", "d")
        hall.dying = set("abcd")
        executor = ClusterExecutor(hall, 4)
        for _ in range(MOST_LOSSES):
            await executor.submit("t", make_graph(), {})
            with pytest.raises(Unreachable):
                await executor.watch("t", lambda share: None)
        with pytest.raises(RunFailed, match="3 workers were lost"):
            await executor.submit("t", make_graph(), {})
        assert hall.names == ["d"]

    asyncio.run(run())


def test_who_only_waited_at_a_lost_worker_bears_no_blame() -> None:
    async def run() -> None:
        hall = Hall("a", "b", "c", "d", "e")
        hall.dying = hall.queueing = set("abcd")
        executor = ClusterExecutor(hall, 4)
        for _ in range(4):
            await executor.submit("t", make_graph(), {})
            with pytest.raises(Unreachable):
                await executor.watch("t", lambda share: None)
        await executor.submit("t", make_graph(), {})
        assert (await executor.watch("t", lambda share: None))[:4] == b"\x89PNG"

    asyncio.run(run())


def test_a_cancelled_run_ends_and_another_goes_on() -> None:
    async def run() -> None:
        hall = Hall("a", "b")
        hall.hold = asyncio.Event()
        executor = ClusterExecutor(hall, 4)
        shares: list[float] = []
        for name in "tu":
            await executor.submit(name, make_graph(seed=3), {})
        one, other = (asyncio.ensure_future(executor.watch(name, shares.append)) for name in "tu")
        while len(shares) < 2:
            await asyncio.sleep(0)
        await executor.cancel("t")
        with pytest.raises(Cancelled):
            await one
        hall.hold.set()
        assert (await other)[:4] == b"\x89PNG"
        with pytest.raises(Unreachable):
            await executor.watch("t", shares.append)

    asyncio.run(run())


def test_a_worker_without_a_word_counts_as_lost() -> None:
    async def run() -> None:
        hall = Hall("a")
        hall.hold = asyncio.Event()
        executor = ClusterExecutor(hall, 4, patience=0.05)
        await executor.submit("t", make_graph(), {})
        with pytest.raises(Unreachable, match="no word"):
            await executor.watch("t", lambda share: None)
        assert hall.roster.rank(["a"], "s", "u") == ["a"]

    asyncio.run(run())


def test_a_front_that_was_killed_goes_on_from_its_database(tmp_path: Path) -> None:
    async def run() -> None:
        hall = Hall("a", "b")
        hall.hold = asyncio.Event()
        first = Front(tmp_path, hall)
        await first.service.start()
        task = make_task(numberResults=3, seed=5, deliveryMethod="async", outputFormat="PNG")
        await first.ask("POST", "/runware/v1", [task])
        while len(hall.begun) < 3:
            await asyncio.sleep(0.01)
        # As after kill -9: nothing is written, nothing is told; only the file's lock goes with the process.
        first.service.dispatcher.wake = lambda: None  # type: ignore[method-assign]
        await first.service.close()
        hall.hold.set()
        second = Front(tmp_path, hall)
        assert await second.service.start() == 3
        poll = {"taskType": "getResponse", "taskUUID": task["taskUUID"]}
        while True:
            _, told = await second.ask("POST", "/runware/v1", [poll], key=first.key)
            if all(item.get("status") == "success" for item in told["data"]) and len(told["data"]) == 3:
                break
            await asyncio.sleep(0.01)
        assert [item["seed"] for item in told["data"]] == [5, 6, 7]
        assert await colours(second, told) == [5, 6, 7]
        await second.service.close()

    asyncio.run(run())


def test_numbers_of_workers() -> None:
    told = [{"name": "m/gpu1/x", "pictures": 3, "seconds": 1.5}, {"name": "m/gpu0/y", "hits": 2}]
    way = Journeys()
    way.add(0.25)
    text = describe_workers(told, way)
    assert "kleinod_way_seconds_sum 0.25\nkleinod_way_seconds_count 1\n" in text
    assert "kleinod_workers 2\n" in text
    assert 'kleinod_worker_pictures_total{worker="m/gpu1/x"} 3\n' in text
    assert 'kleinod_worker_model_hits_total{worker="m/gpu0/y"} 2\n' in text
    assert json.dumps(told) and text.count("# TYPE") == text.count("# HELP") == 9
