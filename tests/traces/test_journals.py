"""The journal: what one process appends, another joins into calls, whatever is killed in between."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.traces.recorded import everything

from trunkline_server.traces import journal as writing
from trunkline_server.traces import journals as reading
from trunkline_server.traces.entries import Closed, Entry, Opened
from trunkline_server.traces.journal import Journal
from trunkline_server.traces.journals import Ended, Journals


def opened(call_id: str, request: bytes = b"asked") -> Opened:
    return Opened(call_id, "CreateCompletion", 1.0, "me", "", 1, False, "", "", request, len(request))


def closed(call_id: str) -> Closed:
    return Closed(
        call_id, "CreateCompletion", 1.0, "me", "", 1, False, "", "", 0, "", b"", "p", "m", 0.1, None, None, 0.0, 0, 0,
        None, [], [], False,
    )  # fmt: skip


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path)
    yield made
    made.close()


def put(journal: Journal, *entries: Entry, size: int = 0) -> None:
    for entry in entries:
        journal.put(getattr(entry, "id", ""), size or 100, lambda entry=entry: entry)  # type: ignore[misc]  # bound now


def read(journals: Journals, count: int, patience: float = 10.0) -> list[Ended]:
    """The next calls that ended, when there are so many."""
    found: list[Ended] = []
    until = time.monotonic() + patience
    while len(found) < count:
        assert time.monotonic() < until, f"{len(found)} of {count}"
        found += journals.read(count - len(found)) or journals.interrupted()
        time.sleep(0.005)
    return found


def after_kill(folder: Path, done: dict[str, int] | None = None) -> Journals:
    """As a delivery process that starts finds it; whoever wrote is dead."""
    for lock in folder.glob("*.lock"):
        lock.unlink()
    return Journals(folder, done=done or {})


def ids(ended: list[Ended]) -> list[str]:
    return [one.id for one in ended]


@pytest.fixture(params=[reading.KEPT, 250, 0], ids=["from-memory", "from-both", "from-disk"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the beginnings of calls are read from when they end."""
    monkeypatch.setattr(reading, "KEPT", request.param)


joined_from_anywhere = pytest.mark.usefixtures("kept")


@joined_from_anywhere
def test_a_call_that_has_ended_is_joined_with_its_beginning(journal: Journal, tmp_path: Path):
    put(journal, opened("a"), opened("b"), closed("b"), closed("a"))
    journals = Journals(tmp_path)
    b, a = read(journals, 2)
    assert (a.opened, a.closed) == (opened("a"), closed("a"))
    assert (b.opened, b.closed) == (opened("b"), closed("b"))
    assert journals.open == 0


@pytest.mark.alone
def test_an_entry_is_on_disk_within_a_fifth_of_a_second(journal: Journal, tmp_path: Path):
    waits = []
    for number in range(10):
        put(journal, opened(f"call-{number}"))
        began = time.monotonic()
        while f"call-{number}".encode() not in everything(tmp_path):
            time.sleep(0.002)
        waits.append(time.monotonic() - began)
    assert sorted(waits)[5] < 0.2  # the median: a busy machine may be late once


def test_a_call_without_a_beginning_is_told_too(journal: Journal, tmp_path: Path):
    put(journal, closed("refused"))
    [ended] = read(Journals(tmp_path), 1)
    assert (ended.opened, ended.closed) == (None, closed("refused"))


@joined_from_anywhere
def test_calls_of_a_process_that_died_are_interrupted(journal: Journal, tmp_path: Path):
    put(journal, opened("open"), opened("done"), closed("done"))
    journals = Journals(tmp_path)
    assert ids(read(journals, 1)) == ["done"]
    assert journals.interrupted() == []
    (tmp_path / f"{journal.worker}.lock").unlink()
    [ended] = journals.interrupted()
    assert (ended.id, ended.opened, ended.closed) == ("open", opened("open"), None)
    assert journals.interrupted() == []


def test_a_process_that_lives_keeps_its_calls_open(journal: Journal, tmp_path: Path):
    put(journal, opened("open"))
    journals = Journals(tmp_path)
    while not journals.open:
        assert journals.read(10) == []
    assert journals.interrupted() == []
    assert not journals.idle


@pytest.mark.parametrize("lost", [1, 7, 8, 30])
def test_what_was_half_written_at_the_end_is_not_read(journal: Journal, tmp_path: Path, lost: int):
    put(journal, opened("a"), closed("a"), opened("b"), closed("b"))
    read(Journals(tmp_path), 2)
    [file] = tmp_path.glob("*.journal")
    os.truncate(file, file.stat().st_size - lost)
    journals = after_kill(tmp_path)
    first, second = read(journals, 2)
    assert (first.id, first.closed) == ("a", closed("a"))
    assert (second.id, second.closed) == ("b", None)


def test_a_damaged_file_costs_what_follows_in_it_and_no_more(journal: Journal, tmp_path: Path):
    put(journal, opened("a"), closed("a"), opened("b"), closed("b"))
    read(Journals(tmp_path), 2)
    [file] = tmp_path.glob("*.journal")
    held = bytearray(file.read_bytes())
    held[-40] ^= 0xFF
    file.write_bytes(held)
    journals = after_kill(tmp_path)
    assert ids(read(journals, 2)) == ["a", "b"]
    assert journals.damaged == 1


def test_what_was_handed_on_before_is_not_handed_on_again(journal: Journal, tmp_path: Path):
    put(journal, opened("a"), opened("b"), opened("c"), closed("a"), closed("b"))
    journals = Journals(tmp_path)
    assert ids(read(journals, 1)) == ["a"]
    again = Journals(tmp_path, done=journals.marks())
    assert ids(read(again, 1)) == ["b"]
    put(journal, closed("c"))
    last = Journals(tmp_path, done=again.marks())
    [ended] = read(last, 1)
    assert ended == Ended(opened("c"), closed("c"), "c")


def test_a_file_goes_when_all_in_it_has_ended_and_is_stored(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writing, "FILE_BYTES", 2000)
    journals = Journals(tmp_path)
    for number in range(50):
        put(journal, opened(f"{number}", b"x" * 100), closed(f"{number}"))
        read(journals, 1)
        journals.tidy()
    assert len(list(tmp_path.glob("*.journal"))) <= 2
    journal.close()
    read(journals, 0)
    while journals.read(1) or not journals.idle:
        pass
    journals.interrupted()
    journals.tidy()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_has_been_quiet_is_retired(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writing, "QUIET", 0.05)
    put(journal, opened("a", b"what was said"), closed("a"))
    journals = Journals(tmp_path)
    read(journals, 1)
    until = time.monotonic() + 10
    while b"what was said" in everything(tmp_path):
        assert time.monotonic() < until
        journals.read(1)
        journals.tidy()
        time.sleep(0.01)
    put(journal, opened("b"), closed("b"))
    assert ids(read(journals, 1)) == ["b"]


@joined_from_anywhere
def test_calls_that_are_open_for_long_hold_no_file(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writing, "FILE_BYTES", 2000)
    monkeypatch.setattr(reading, "LINGER", 0.0)
    monkeypatch.setattr(reading, "CARRIED_BYTES", 3000)
    journals = Journals(tmp_path)
    put(journal, *(opened(f"long-{number}", b"y" * 200) for number in range(10)))
    for number in range(100):
        put(journal, opened(f"{number}", b"x" * 100), closed(f"{number}"))
        if number % 10 == 0:
            put(journal, opened(f"later-{number}"))
        if number % 10 == 9:
            put(journal, closed(f"later-{number - 9}"))
        read(journals, 2 if number % 10 == 9 else 1)
        journals.tidy()
    assert journals.open == 10
    assert sum(path.stat().st_size for path in tmp_path.glob("*.journal")) < 12_000
    done = journals.marks()

    # Whoever comes after knows them, too, and those that have ended meanwhile are not open again.
    put(journal, closed("long-3"))
    heir = Journals(tmp_path, done=done)
    [ended] = read(heir, 1)
    assert ended == Ended(opened("long-3", b"y" * 200), closed("long-3"), "long-3")
    heir.tidy()
    assert heir.open == 9
    third = after_kill(tmp_path, heir.marks())
    rest = read(third, 9)
    assert sorted(ids(rest)) == [f"long-{n}" for n in range(10) if n != 3]
    assert all(one.closed is None and one.opened is not None for one in rest)
    third.tidy()
    fourth = after_kill(tmp_path, third.marks())
    assert fourth.read(10) == []
    assert fourth.interrupted() == []


def test_many_calls_of_many_processes_are_each_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writing, "FILE_BYTES", 5000)
    monkeypatch.setattr(reading, "LINGER", 0.0)
    writers = [Journal(tmp_path) for _ in range(3)]
    try:
        for number in range(300):
            put(writers[number % 3], opened(f"{number:03}", b"z" * (number % 50)))
            if number >= 20:
                put(writers[(number - 20) % 3], closed(f"{number - 20:03}"))
    finally:
        for writer in writers:
            writer.close()
    found: list[str] = []
    done: dict[str, int] = {}
    # Each reads a little, and the next one goes on from its marks.
    while len(found) < 300:
        journals = Journals(tmp_path, done=done)
        ended = journals.read(23) or journals.interrupted()
        found += ids(ended)
        done = journals.marks()
        journals.tidy()
        journals.close()
    assert sorted(found) == [f"{number:03}" for number in range(300)]


# -- a disk that is slower than the calls -----------------------------------------------------------------------------


def test_what_the_disk_cannot_take_waits_and_is_written_when_it_can(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    journal._told = told.append
    write = os.write
    full = [True]

    def limited(handle: int, data: bytes) -> int:
        if full[0] and data[8:9] != b"\x91":  # half of it, and then no more
            write(handle, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return write(handle, data)

    monkeypatch.setattr(os, "write", limited)
    put(journal, opened("a"), closed("a"))
    until = time.monotonic() + 10
    while not told:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert Journals(tmp_path).read(10) == []
    full[0] = False
    assert ids(read(Journals(tmp_path), 1)) == ["a"]
    assert told == ["the journal of calls cannot be written: No space left on device", ""]


def test_beyond_the_buffer_the_oldest_go_and_are_counted(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writing, "BUFFER", 10_000)
    put(journal, opened("first"))
    journals = Journals(tmp_path)
    while not journals.open:
        journals.read(10)
    for number in range(30):
        put(journal, closed("first") if number == 0 else closed(f"{number}"), size=1000)
    found = ids(read(journals, 10))
    assert found == [f"{number}" for number in range(20, 30)]
    assert journal.lost == 20
    while journals.lost != 20:
        assert journals.read(10) == []
    # The end of "first" is lost: it is not open any more, and nobody says that it was interrupted.
    assert journals.open == 0


def test_putting_costs_microseconds_and_never_waits(journal: Journal, monkeypatch: pytest.MonkeyPatch):
    def stuck(handle: int, data: bytes) -> int:
        time.sleep(30)
        return len(data)

    monkeypatch.setattr(os, "write", stuck)
    entry = closed("a")
    spent = time.thread_time()
    began = time.monotonic()
    for number in range(5000):
        journal.put(str(number), 1_000_000, lambda: entry)
    assert time.thread_time() - spent < 0.5
    assert time.monotonic() - began < 5
    assert journal.lost > 4900
    journal.close(0.0)


def test_nobody_reads_and_the_bound_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writing, "FILE_BYTES", 1000)
    monkeypatch.setattr(writing, "INTERVAL", 0.001)
    journal = Journal(tmp_path, most_bytes=5000)
    for number in range(200):
        put(journal, opened(f"{number}", b"x" * 300))
        time.sleep(0.002)
    journal.close()
    assert sum(path.stat().st_size for path in tmp_path.glob("*.journal")) < 15_000  # of 80,000
