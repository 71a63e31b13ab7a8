"""What lies in the outbox reaches every backend in order, whatever another one does."""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.gateway import until
from tests.traces.samples import sample, trace_id

from trunkline_server.redact import redact
from trunkline_server.telemetry.logs import make_log
from trunkline_server.traces import deleted as deleting
from trunkline_server.traces import outbox as storing
from trunkline_server.traces import sender as sending
from trunkline_server.traces.base import BackendUnavailable, Record
from trunkline_server.traces.deleted import Deleted, tell
from trunkline_server.traces.outbox import Cursor, Outbox
from trunkline_server.traces.sender import Sender


def payload(number: int, size: int = 0) -> tuple[str, bytes]:
    trace = sample(id=trace_id(number), said="x" * size)
    return trace_id(number), trace.SerializeToString()


def ids(numbers: Sequence[int]) -> list[str]:
    return [trace_id(number) for number in numbers]


def opened(folder: Path, most_bytes: int = 1 << 30) -> Outbox:
    made = Outbox(folder / "outbox", most_bytes)
    made.open()
    return made


def fill(outbox: Outbox, first: int, count: int, size: int = 0) -> None:
    outbox.append([payload(number, size) for number in range(first, first + count)], {"a.journal": first}, 0)


# -- the outbox -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[storing.RECENT_BYTES, 10_000, 0], ids=["from-memory", "from-both", "from-disk"])
def recent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where traces are read from."""
    monkeypatch.setattr(storing, "RECENT_BYTES", request.param)


reading_anywhere = pytest.mark.usefixtures("recent")


@reading_anywhere
def test_traces_are_read_in_order_by_each_cursor_for_itself(tmp_path: Path):
    outbox = opened(tmp_path)
    fill(outbox, 0, 10)
    fast, slow = Cursor(0), Cursor(0)
    assert [s.number for s in outbox.read(fast, 100, 1 << 20)] == list(range(10))
    assert [s.id for s in outbox.read(slow, 3, 1 << 20)] == ids(range(3))
    fill(outbox, 10, 5)
    assert [s.number for s in outbox.read(fast, 100, 1 << 20)] == list(range(10, 15))
    assert [s.number for s in outbox.read(slow, 100, 1 << 20)] == list(range(3, 15))
    assert outbox.read(fast, 100, 1 << 20) == []


@reading_anywhere
def test_a_batch_is_bounded_in_bytes_but_for_one_that_is_larger_alone(tmp_path: Path):
    outbox = opened(tmp_path)
    fill(outbox, 0, 5, size=3_000_000)
    cursor = Cursor(0)
    assert [len(outbox.read(cursor, 100, 1_000)) for _ in range(5)] == [1] * 5
    assert outbox.read(cursor, 100, 1_000) == []


@pytest.mark.parametrize("lost", [1, 60, 5_000])
def test_what_was_half_written_is_cut_off_with_its_marks(tmp_path: Path, lost: int):
    outbox = opened(tmp_path)
    outbox.append([payload(0)], {"a": 1}, 3)
    outbox.append([payload(number) for number in range(1, 20)], {"a": 2}, 5)
    outbox.close()
    [segment] = (tmp_path / "outbox").iterdir()
    os.truncate(segment, segment.stat().st_size - lost)
    again = opened(tmp_path)
    assert (again.next, again.marks, again.lost) == (1, {"a": 1}, 3)
    fill(again, 1, 2)
    assert [s.id for s in again.read(Cursor(0), 100, 1 << 20)] == ids(range(3))


def test_marks_outlive_the_segments_before_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storing, "SEGMENT_BYTES", 2_000)
    outbox = opened(tmp_path)
    for number in range(20):
        fill(outbox, number, 1)
    assert outbox.drop(20, 0, last=True) == 0
    outbox.close()
    [segment] = (tmp_path / "outbox").iterdir()
    assert segment.stat().st_size < 200
    again = opened(tmp_path)
    assert (again.next, again.marks, again.first) == (20, {"a.journal": 19}, 20)
    fill(again, 20, 1)
    assert [s.number for s in again.read(Cursor(20), 10, 1 << 20)] == [20]


@reading_anywhere
def test_beyond_the_bound_the_oldest_go_and_are_counted(tmp_path: Path):
    outbox = opened(tmp_path, most_bytes=100_000)
    for number in range(400):
        fill(outbox, number, 1)
    dropped = outbox.drop(0, 0)
    assert 0 < dropped < 400
    assert outbox.first == dropped
    assert outbox.size <= 100_000
    assert [s.number for s in outbox.read(Cursor(0), 1000, 1 << 30)] == list(range(dropped, 400))
    # What lies in the journals counts, too.
    assert outbox.drop(0, 90_000) > 0


def test_a_damaged_segment_costs_what_follows_in_it_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storing, "SEGMENT_BYTES", 5_000)
    monkeypatch.setattr(storing, "RECENT_BYTES", 0)
    outbox = opened(tmp_path)
    for number in range(40):
        fill(outbox, number, 1)
    first, second, *_ = sorted((tmp_path / "outbox").iterdir())
    held = bytearray(first.read_bytes())
    held[len(held) // 2] ^= 0xFF
    first.write_bytes(held)
    cursor = Cursor(0)
    found = [s.number for s in outbox.read(cursor, 1000, 1 << 30)]
    assert found == sorted(found)
    assert set(range(int(second.stem), 40)) <= set(found)
    assert outbox.damaged == 1


@reading_anywhere
def test_a_disk_that_is_full_takes_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    outbox = opened(tmp_path)
    fill(outbox, 0, 2)
    write = os.write

    def full(handle: int, data: bytes) -> int:
        write(handle, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            fill(outbox, 2, 2)
    assert outbox.next == 2
    fill(outbox, 2, 2)
    assert [s.number for s in outbox.read(Cursor(0), 10, 1 << 20)] == [0, 1, 2, 3]
    outbox.close()
    assert opened(tmp_path).next == 4


# -- senders ----------------------------------------------------------------------------------------------------------


@dataclass
class Store:
    """A sink in memory that can be told to fail, to hang, or to refuse."""

    took: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    down: Exception | None = None
    hangs: bool = False
    refuses: Callable[[Record], bool] = lambda record: False
    opened: int = 0
    closed: int = 0
    pruned: list[float] = field(default_factory=list)

    async def open(self) -> None:
        await self._ask()
        self.opened += 1

    async def write(self, records: Sequence[Record]) -> None:
        await self._ask()
        if any(self.refuses(record) for record in records):
            raise ValueError("a record that the driver cannot encode")
        self.batches.append(len(records))
        self.took += [record.id for record in records if record.id not in self.took]

    async def prune(self, before: float, most_bytes: int | None) -> int:
        self.pruned.append(before)
        return 2

    async def aclose(self) -> None:
        self.closed += 1

    async def _ask(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.down is not None:
            raise self.down


@dataclass
class Sending:
    outbox: Outbox
    senders: list[Sender]
    log: io.StringIO

    def fill(self, first: int, count: int, size: int = 0) -> None:
        fill(self.outbox, first, count, size)
        for sender in self.senders:
            sender.wake()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@asynccontextmanager
async def delivering(folder: Path, *stores: Any, outbox: Outbox | None = None, **how: Any) -> AsyncIterator[Sending]:
    outbox = outbox or opened(folder)
    cursors = folder / "cursors"
    cursors.mkdir(exist_ok=True)
    log = io.StringIO()
    senders = [
        Sender(
            f"store{n}",
            f"store{n}://u:p@h",
            store,
            outbox,
            cursors,
            make_log(stream=log),
            redact,
            deleted=Deleted(folder / "spool/0/deleted"),
            **how,
        )
        for n, store in enumerate(stores)
    ]
    tasks = [asyncio.create_task(sender.run()) for sender in senders]
    try:
        yield Sending(outbox, senders, log)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(sender.aclose() for sender in senders))


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "FIRST_DELAY", 0.005)
    monkeypatch.setattr(sending, "LONGEST_DELAY", 0.05)
    monkeypatch.setattr(sending, "LINGER", 0.01)


async def test_everything_arrives_in_order_and_in_batches(tmp_path: Path):
    store = Store()
    async with delivering(tmp_path, store) as made:
        for first in range(0, 2000, 100):
            made.fill(first, 100)
        await until(lambda: len(store.took) == 2000)
        assert store.took == ids(range(2000))
        assert max(store.batches) <= sending.MOST
        assert len(store.batches) < 20
        assert made.senders[0].measure().waiting == 0
        assert made.senders[0].measure().delivered == 2000
    assert store.closed == 1


async def test_one_that_is_down_or_hangs_touches_no_other(tmp_path: Path):
    down, hangs, well = Store(down=BackendUnavailable("gone")), Store(hangs=True), Store()
    async with delivering(tmp_path, down, hangs, well) as made:
        made.fill(0, 50)
        await until(lambda: len(well.took) == 50)
        assert (down.took, hangs.took) == ([], [])
        status = made.senders[0].measure()
        assert (status.up, status.waiting) == (False, 50)
        assert status.oldest > 0
        down.down = None
        await until(lambda: len(down.took) == 50)
        assert down.took == ids(range(50))
        assert made.senders[0].measure().up
    told = [(line["event"], line["backend"]) for line in made.lines]
    assert told == [("trace backend is down", "store0"), ("trace backend is back", "store0")]


@pytest.mark.parametrize("error", [BackendUnavailable("gone"), OSError(111, "Connection refused"), TimeoutError()])
async def test_a_batch_that_failed_is_written_again_after_connecting_anew(tmp_path: Path, error: Exception):
    store = Store()
    async with delivering(tmp_path, store) as made:
        made.fill(0, 5)
        await until(lambda: len(store.took) == 5)
        store.down = error
        made.fill(5, 5)
        await until(lambda: made.senders[0].status.failures > 2)
        store.down = None
        await until(lambda: len(store.took) == 10)
        assert store.took == ids(range(10))
        assert store.opened == 2


async def test_one_that_hangs_is_given_up_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sending, "WRITING", 0.05)
    store = Store()
    async with delivering(tmp_path, store) as made:
        await until(lambda: store.opened == 1)
        store.hangs = True
        made.fill(0, 5)
        await until(lambda: made.senders[0].status.failures == 1)
        store.hangs = False
        await until(lambda: len(store.took) == 5)
    assert made.lines[0]["error"] == "it does not answer in time"


async def test_a_record_that_is_refused_costs_no_other(tmp_path: Path):
    bad = {trace_id(7), trace_id(40)}
    store = Store(refuses=lambda record: record.id in bad)
    async with delivering(tmp_path, store) as made:
        made.fill(0, 100)
        await until(lambda: made.senders[0].measure().waiting == 0)
        assert store.took == [one for one in ids(range(100)) if one not in bad]
        assert made.senders[0].status.rejected == 2
    refused = [line for line in made.lines if line["event"] == "trace refused"]
    assert {line["trace"] for line in refused} == bad


async def test_one_that_refuses_everything_loses_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sending, "LONGEST_DELAY", 0.5)
    store = Store(refuses=lambda record: True)
    async with delivering(tmp_path, store) as made:
        made.fill(0, 200)
        await until(lambda: made.senders[0].status.failures > 4)
        store.refuses = lambda record: False
        await until(lambda: made.senders[0].measure().waiting == 0)
        assert len(store.took) >= 190
        assert store.took == sorted(store.took)


async def test_a_process_that_comes_after_goes_on_where_the_one_before_was(tmp_path: Path):
    first, second = Store(), Store()
    async with delivering(tmp_path, first) as made:
        made.fill(0, 10)
        await until(lambda: made.senders[0].measure().waiting == 0)
        first.down = BackendUnavailable("gone")
        made.fill(10, 5)
        await until(lambda: made.senders[0].status.failures)
    made.outbox.close()
    async with delivering(tmp_path, second) as made:
        await until(lambda: made.senders[0].measure().waiting == 0)
    assert first.took == ids(range(10))
    assert second.took == ids(range(10, 15))


async def test_what_the_bound_of_the_disk_took_is_counted_for_those_who_missed_it(tmp_path: Path):
    slow, fast = Store(down=BackendUnavailable("gone")), Store()
    async with delivering(tmp_path, slow, fast, outbox=opened(tmp_path, most_bytes=50_000)) as made:
        for number in range(200):
            made.fill(number, 1)
        await until(lambda: len(fast.took) == 200)
        dropped = made.outbox.drop(0, 0)
        slow.down = None
        await until(lambda: made.senders[0].measure().waiting == 0)
    assert made.senders[0].status.dropped == dropped > 0
    assert made.senders[1].status.dropped == 0
    assert slow.took == ids(range(dropped, 200))


async def test_what_is_too_old_is_pruned_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sending, "PRUNING", 0.02)
    monkeypatch.setattr(Sender, "__init__", _soon(Sender.__init__))
    store = Store()
    async with delivering(tmp_path, store, keep=3600.0) as made:
        await until(lambda: len(store.pruned) > 2)
        assert abs(time.time() - 3600 - store.pruned[0]) < 60
        assert made.senders[0].status.pruned >= 4
    assert made.lines[0]["event"] == "old traces deleted"


def _soon(make: Any) -> Any:
    def made(self: Sender, *arguments: Any, **how: Any) -> None:
        make(self, *arguments, **how)
        self._pruned_at = 0.0

    return made


async def test_errors_of_a_backend_show_no_password(tmp_path: Path):
    store = Store(down=BackendUnavailable("cannot reach postgresql://user:hunter22@db:5432/x"))
    async with delivering(tmp_path, store) as made:
        await until(lambda: made.lines)
    assert "hunter22" not in made.log.getvalue()


# -- what was deleted -------------------------------------------------------------------------------------------------


@dataclass
class Readable(Store):
    """One that can take records out again; `meanwhile` happens while it writes."""

    meanwhile: Callable[[], None] = lambda: None
    stubborn: int = 0

    async def write(self, records: Sequence[Record]) -> None:
        await super().write(records)
        self.meanwhile()

    async def delete(self, trace_id: str) -> bool:
        if self.stubborn:
            self.stubborn -= 1
            raise BackendUnavailable("not now")
        there = trace_id in self.took
        self.took = [one for one in self.took if one != trace_id]
        return there


def spool(folder: Path) -> Path:
    """A state directory with one server's folder."""
    (folder / "spool/0").mkdir(parents=True)
    return folder


async def test_what_was_deleted_while_it_waited_is_delivered_to_nobody(tmp_path: Path):
    away, sidecar = Store(down=BackendUnavailable("away")), Store(down=BackendUnavailable("away"))
    state_dir = spool(tmp_path)
    async with delivering(tmp_path, away, sidecar) as made:
        made.fill(0, 6)
        await until(lambda: all(not sender.status.up for sender in made.senders))
        for number in (0, 3):
            tell(state_dir, trace_id(number))
    # Another process, after this one was killed.
    away.down = sidecar.down = None
    async with delivering(tmp_path, away, sidecar, outbox=opened(tmp_path)) as made:
        made.fill(6, 1)
        await until(lambda: all(sender.delivered == 7 for sender in made.senders))
        assert [sender.measure().waiting for sender in made.senders] == [0, 0]
    assert away.took == sidecar.took == ids([1, 2, 4, 5, 6])


async def test_what_is_deleted_while_it_is_written_is_taken_out_again(tmp_path: Path):
    state_dir = spool(tmp_path)
    # Taking it out fails once: the batch comes again, without it.
    store = Readable(meanwhile=lambda: tell(state_dir, trace_id(1)), stubborn=1)
    async with delivering(tmp_path, store, reader=store) as made:
        made.fill(0, 3)
        await until(lambda: made.senders[0].delivered == 3)
    assert store.took == ids([0, 2])


async def test_one_that_does_not_take_out_holds_up_nothing(tmp_path: Path):
    store = Readable(stubborn=sending.TRIES)
    tell(spool(tmp_path), trace_id(1))
    async with delivering(tmp_path, store, reader=store) as made:
        made.fill(0, 3)
        await until(lambda: made.senders[0].delivered == 3)
    (told,) = [line for line in made.lines if line["level"] == "error"]
    assert (told["event"], told["trace"]) == ("a deleted trace may be there again: delete it again", trace_id(1))


def test_a_deletion_is_kept_as_long_as_anything_older_may_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(deleting, "time", SimpleNamespace(monotonic=lambda: now))
    state_dir = spool(tmp_path)
    tell(state_dir, trace_id(1))
    made = Deleted(state_dir / "spool/0/deleted")
    made.forget(5, 5)
    # The end of its call may still come from the process that served it: as number 5.
    now += deleting.LATE / 2
    made.forget(6, 6)
    assert made.among([trace_id(0), trace_id(1)]) == [trace_id(1)]
    now += deleting.LATE
    # Now all that was older has a number below 9.
    made.forget(6, 9)
    made.forget(8, 12)
    assert made.among([trace_id(1)]) == [trace_id(1)]
    made.forget(9, 12)
    assert made.among([trace_id(1)]) == []
    assert list((state_dir / "spool/0/deleted").iterdir()) == []


def test_a_deletion_reaches_every_spool_and_a_later_process(tmp_path: Path):
    state_dir = spool(tmp_path)
    (state_dir / "spool/1").mkdir()
    tell(state_dir, trace_id(1))
    tell(state_dir, trace_id(1))
    assert [Deleted(state_dir / f"spool/{n}/deleted").among([trace_id(1)]) for n in (0, 1)] == [[trace_id(1)]] * 2
    assert Deleted(state_dir / "spool/2/deleted").among([trace_id(1)]) == []
