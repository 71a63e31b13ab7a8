"""What every backend that only takes records does, in the same way: the part of the contract that is about writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import pytest
from tests.traces.samples import NOON, record, sample, timestamp, trace_id

from trunkline.v1alpha import trace_pb2
from trunkline_server.traces.base import Backend, BackendUnavailable, Sink


class Receiving(Protocol):
    """A real receiver, which can be looked into."""

    async def ids(self, count: int) -> Sequence[str]:
        """Ids of all that came, in order, once there are so many."""

    async def stop(self) -> None:
        """Goes away, with all its connections."""

    async def start(self) -> None:
        """Comes back."""


@dataclass
class Taken:
    """A backend and who receives from it."""

    backend: Backend
    sink: Sink
    receiver: Receiving

    async def write(self, *traces: trace_pb2.Trace) -> list[str]:
        records = [record(trace) for trace in traces]
        await self.sink.write(records)
        return [one.id for one in records]


#: Gives a receiver that runs and the backend that writes to it.
Make = Callable[[], AbstractAsyncContextManager[Taken]]


class WritingContract:
    """Tests take `taken`: a backend that is open, and a receiver that has nothing yet."""

    async def test_what_is_written_arrives_in_order(self, taken: Taken):
        first = await taken.write(*(sample() for _ in range(20)))
        second = await taken.write(sample())
        assert list(await taken.receiver.ids(21)) == first + second

    async def test_a_record_that_is_written_again_can_be_told(self, taken: Taken):
        again = sample()
        [name] = await taken.write(again)
        await taken.write(sample(), again)
        came = await taken.receiver.ids(3)
        assert came.count(name) == 2
        assert len(set(came)) == 2

    async def test_any_text_and_any_bytes_arrive(self, taken: Taken):
        odd = "a\0b \u2028 Ж 日本 👩‍👩‍👧 \x7f ' \" \\ ; -- %_ \ufffe \r\n {"
        names = await taken.write(
            sample(said=odd, body=bytes(range(256)), labels={odd[:60]: odd}, error=odd, code=2, model=odd, caller=odd),
            sample(),
        )
        assert list(await taken.receiver.ids(2)) == names

    async def test_a_record_with_next_to_nothing_arrives(self, taken: Taken):
        bare = trace_pb2.Trace(name=f"traces/{trace_id(7)}", start_time=timestamp(NOON), method="CountTokens")
        interrupted = sample(code=None, duration_us=None)
        names = await taken.write(bare, interrupted)
        assert list(await taken.receiver.ids(2)) == names

    async def test_large_records_and_batches_arrive(self, taken: Taken):
        large = [sample(said="x" * 200_000, body=bytes(500_000)) for _ in range(12)]
        names = await taken.write(*large, *(sample() for _ in range(500)))
        assert list(await taken.receiver.ids(512)) == names

    async def test_a_receiver_that_is_gone_is_a_state_that_passes(self, taken: Taken):
        [first] = await taken.write(sample())
        await taken.receiver.ids(1)
        await taken.receiver.stop()
        lost = sample()
        with pytest.raises(BackendUnavailable) as told:
            # What the kernel has taken of the first tells nothing yet.
            for _ in range(20):
                await taken.write(lost)
        assert taken.backend.name in str(told.value)
        with pytest.raises(BackendUnavailable):
            await taken.sink.open()
            await taken.write(lost)

        await taken.receiver.start()
        await taken.sink.open()
        [name] = await taken.write(lost)
        came = await taken.receiver.ids(1)
        assert name in came
        assert first not in came

    async def test_an_empty_batch_is_none(self, taken: Taken):
        await taken.sink.write([])
        [name] = await taken.write(sample())
        assert list(await taken.receiver.ids(1)) == [name]

    async def test_old_records_are_the_receivers_to_delete(self, taken: Taken):
        assert await taken.sink.prune(4e9, 1) == 0

    async def test_it_can_be_closed_twice_and_cannot_be_read(self, taken: Taken):
        await taken.sink.aclose()
        await taken.sink.aclose()
        assert taken.backend.reader() is None
