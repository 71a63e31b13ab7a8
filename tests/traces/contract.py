"""What every backend that can be read does, in the same way. Run by `test_contract.py` over all of `stores.STORES`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.traces.samples import NOON, duration, record, sample, timestamp, trace_id

from trunkline.v1.completion_pb2 import USAGE_SOURCE_ESTIMATED, UsageSource
from trunkline.v1alpha import trace_pb2
from trunkline.v1alpha import trace_service_pb2 as pb
from trunkline_server.traces.base import Backend, Position, Reader, Sink, Total
from trunkline_server.traces.columns import unix_us
from trunkline_server.traces.matching import matches

Trace = trace_pb2.Trace
Filter = pb.TraceFilter


@dataclass
class Kept:
    """A backend that is written and read."""

    sink: Sink
    reader: Reader

    async def write(self, *traces: Trace) -> None:
        await self.sink.write([record(trace) for trace in traces])

    async def get(self, trace: Trace, *, full: bool = True) -> Trace | None:
        return await self.reader.get(trace.name.removeprefix("traces/"), full=full)

    async def pages(
        self, which: Filter | None = None, *, size: int = 1000, oldest_first: bool = False, full: bool = False
    ) -> AsyncIterator[Sequence[Trace]]:
        after: Position | None = None
        while True:
            page = await self.reader.list(
                which or Filter(), after=after, size=size, oldest_first=oldest_first, full=full
            )
            assert len(page.traces) <= size
            yield page.traces
            if not page.more:
                return
            assert page.traces, "an empty page that is not the last leads nowhere"
            last = page.traces[-1]
            after = Position(unix_us(last.start_time), last.name.removeprefix("traces/"))

    async def all(self, which: Filter | None = None, **how: Any) -> list[Trace]:
        return [trace async for page in self.pages(which, **how) for trace in page]


async def opened(backend: Backend) -> Kept:
    sink, reader = backend.sink(), backend.reader()
    assert reader is not None
    await sink.open()
    return Kept(sink, reader)


def names(traces: Sequence[Trace]) -> list[str]:
    return [trace.name for trace in traces]


def newest_first(traces: Sequence[Trace]) -> list[Trace]:
    return sorted(traces, key=lambda t: (unix_us(t.start_time), t.name), reverse=True)


class Contract:
    """Tests take `kept`: an empty backend."""

    # -- write and get ------------------------------------------------------------------------------------------------

    async def test_what_was_written_comes_back(self, kept: Kept):
        trace = sample(labels={"team": "search", "run": "7"}, otel_trace_id="ab" * 16, cancelled=True)
        await kept.write(trace)
        assert await kept.get(trace) == trace

    async def test_the_basic_view_holds_nothing_of_what_was_said(self, kept: Kept):
        trace = sample(said="a secret of the user", labels={"team": "search"}, error="too slow", code=14)
        trace.completion_spec.extra_system_text = "a secret of the user"
        trace.completion_spec.provider_options_json["openai"] = '{"prediction": "a secret of the user"}'
        trace.completion.raw.body = b"a secret of the user"
        await kept.write(trace)
        got = await kept.get(trace, full=False)
        assert got is not None
        assert b"a secret of the user" not in got.SerializeToString()
        assert got.completion_spec.params.temperature == 0.5
        assert (got.status, got.usage, got.labels) == (trace.status, trace.usage, trace.labels)
        assert [a.number for a in got.attempts] == [1]
        [listed] = await kept.all()
        assert listed == got
        assert await kept.all(full=True) == [trace]

    async def test_a_trace_without_content_comes_back(self, kept: Kept):
        bare = Trace(name=f"traces/{trace_id(7)}", start_time=timestamp(NOON), method="CountTokens")
        await kept.write(bare)
        assert await kept.get(bare) == bare
        assert await kept.get(bare, full=False) == bare

    async def test_what_is_not_there_is_none(self, kept: Kept):
        assert await kept.reader.get(trace_id(1 << 60), full=True) is None
        assert await kept.reader.get("no id at all", full=True) is None
        assert not await kept.reader.delete(trace_id(1 << 60))

    async def test_a_record_that_is_written_again_is_there_once(self, kept: Kept):
        first, second, third = sample(), sample(labels={"a": "b"}, error="no", code=13), sample()
        await kept.write(first, second)
        await kept.write(second, third)
        await kept.write(first, second, third)
        await kept.write(first, first)
        assert names(await kept.all()) == names(newest_first([first, second, third]))
        assert names(await kept.all(Filter(labels={"a": "b"}))) == [second.name]
        assert names(await kept.all(Filter(error_text="no"))) == [second.name]

    async def test_any_text_and_any_bytes_come_back(self, kept: Kept):
        odd = "a\0b \u2028 Ж 日本 👩‍👩‍👧 \x7f ' \" \\ ; -- %_ \ufffe"
        trace = sample(
            said=odd,
            body=bytes(range(256)) * 40,
            labels={odd[:60]: odd},
            error=odd,
            code=2,
            reason="INTERNAL",
            caller=odd[:40],
            model=odd,
            asked_model=odd,
            request_id=odd,
        )
        await kept.write(trace)
        assert await kept.get(trace) == trace
        assert names(await kept.all(Filter(error_text="日本"))) == [trace.name]

    async def test_a_large_record_comes_back(self, kept: Kept):
        body = random.Random(4).randbytes(3_500_000)  # does not compress
        trace = sample(body=body)
        await kept.write(trace, sample())
        assert await kept.get(trace) == trace
        assert len(await kept.all()) == 2

    async def test_traces_that_are_alike_in_all_but_their_id_are_all_there(self, kept: Kept):
        alike = [sample(id=trace_id(n), start_us=NOON, error="too slow", code=14, labels={"a": "b"}) for n in range(60)]
        shuffled = random.Random(1).sample(alike, len(alike))
        for start in range(0, 60, 20):
            await kept.write(*shuffled[start : start + 20])
        wanted = names(newest_first(alike))
        for which in (Filter(), Filter(labels={"a": "b"}), Filter(error_text="slow"), Filter(code=14)):
            assert names(await kept.all(which, size=7)) == wanted
            assert names(await kept.all(which, size=7, oldest_first=True)) == wanted[::-1]

    async def test_an_id_of_another_form_is_kept_too(self, kept: Kept):
        trace = sample(id="cmpl_1234-of-a-test")
        await kept.write(trace)
        assert await kept.get(trace) == trace
        assert names(await kept.all()) == [trace.name]

    # -- filters ------------------------------------------------------------------------------------------------------

    async def test_each_filter_finds_what_it_asks_for(self, kept: Kept):
        traces = varied()
        await kept.write(*traces)
        for which in FILTERS:
            expected = chosen(traces, which)
            assert names(await kept.all(which)) == expected, which
            assert names(await kept.all(which, size=3)) == expected, which
            assert names(await kept.all(which, size=3, oldest_first=True)) == expected[::-1], which

    async def test_filters_together_find_what_fulfils_all(self, kept: Kept):
        traces = varied()
        await kept.write(*traces)
        generator = random.Random(20)
        hits = 0
        for _ in range(150):
            which = Filter()
            for one in generator.sample(FILTERS, generator.randint(2, 4)):
                which.MergeFrom(one)
            expected = chosen(traces, which)
            hits += bool(expected)
            assert names(await kept.all(which, size=5)) == expected, which
        assert hits > 20

    async def test_an_interrupted_call_counts_as_failed(self, kept: Kept):
        ended, open_still = sample(), sample(code=None, duration_us=None)
        await kept.write(ended, open_still)
        assert names(await kept.all(Filter(failed=True))) == [open_still.name]
        assert names(await kept.all(Filter(failed=False))) == [ended.name]
        assert names(await kept.all(Filter(code=0))) == [ended.name]

    async def test_words_of_an_error_are_words_and_no_operators(self, kept: Kept):
        trace = sample(error='Rate limit: "AND" OR context_length_exceeded (429) for org-x*', code=8)
        await kept.write(trace, sample(error="not that", code=8))
        for text in ("rate", "LIMIT rate", "and or", "context_length_exceeded", "429 org-x", '"limit"', "x*", "(429"):
            assert names(await kept.all(Filter(error_text=text))) == [trace.name], text
        for text in ("rat", "limit NOT rate", "orgx", "NEAR(rate limit)", "429 430"):
            assert await kept.all(Filter(error_text=text)) == [], text

    async def test_totals_are_sums_of_what_the_filter_finds(self, kept: Kept):
        traces = varied()
        await kept.write(*traces)
        for which in FILTERS:
            for span_us in (1_000_000, 3_600_000_000):
                got = await kept.reader.totals(which, span_us=span_us)
                assert list(got) == summed([trace for trace in traces if matches(which, trace)], span_us), which

    # -- paging -------------------------------------------------------------------------------------------------------

    async def test_pages_have_no_gap_and_no_repeat_while_calls_go_on(self, kept: Kept):
        before = [sample(start_us=NOON + n // 3, labels={"even": str(n % 2 == 0)}) for n in range(90)]
        await kept.write(*before)
        for which in (Filter(), Filter(labels={"even": "True"}), Filter(provider="openai", code=0)):
            wanted = chosen(before, which)
            got: list[str] = []
            async for page in kept.pages(which, size=8):
                got += names(page)
                newer = [sample(start_us=NOON + 10_000 + len(got), labels={"even": "True"}) for _ in range(3)]
                await kept.write(*newer)
            assert [name for name in got if name in set(names(before))] == wanted
            assert len(got) == len(set(got))

    async def test_a_page_goes_on_where_a_deleted_record_was(self, kept: Kept):
        traces = newest_first([sample() for _ in range(9)])
        await kept.write(*traces)
        got: list[str] = []
        async for page in kept.pages(size=3):
            got += names(page)
            assert await kept.reader.delete(page[-1].name.removeprefix("traces/"))
        assert got == names(traces)

    async def test_an_empty_store_has_one_empty_page(self, kept: Kept):
        assert [list(page) async for page in kept.pages()] == [[]]

    # -- delete and prune ---------------------------------------------------------------------------------------------

    async def test_a_deleted_record_is_gone_from_everywhere(self, kept: Kept):
        gone = sample(labels={"a": "b"}, error="too slow", code=14)
        stays = sample(labels={"a": "b"}, error="too slow", code=14)
        await kept.write(gone, stays)
        gone_id = gone.name.removeprefix("traces/")
        assert await kept.reader.delete(gone_id)
        assert not await kept.reader.delete(gone_id)
        assert await kept.get(gone) is None
        for which in (Filter(), Filter(labels={"a": "b"}), Filter(error_text="slow"), Filter(code=14)):
            assert names(await kept.all(which)) == [stays.name]

    async def test_what_is_too_old_is_pruned(self, kept: Kept):
        old = [sample(start_us=NOON + n, labels={"a": "b"}, error="no", code=13) for n in range(25)]
        young = [sample(start_us=NOON + 5_000_000 + n) for n in range(25)]
        await kept.write(*old, *young)
        await kept.sink.prune((NOON + 5_000_000) / 1e6, None)
        await settled(kept, 25)
        assert names(await kept.all()) == names(newest_first(young))
        assert await kept.all(Filter(labels={"a": "b"})) == []

    async def test_a_store_that_is_opened_again_holds_what_it_held(self, kept: Kept):
        first, second = sample(), sample()
        await kept.write(first)
        await kept.sink.open()
        await kept.write(first, second)
        assert names(await kept.all()) == names(newest_first([first, second]))


async def settled(kept: Kept, count: int) -> None:
    """Returns when the store holds so many: some prune by and by."""
    async with asyncio.timeout(30):
        while len(await kept.all()) != count:
            await asyncio.sleep(0.05)


def summed(traces: Sequence[Trace], span_us: int) -> list[Total]:
    groups: dict[tuple[int, str, str], list[Trace]] = {}
    for trace in traces:
        groups.setdefault((unix_us(trace.start_time) // span_us * span_us, trace.provider, trace.model), []).append(
            trace
        )
    return [
        Total(
            *key,
            len(of),
            sum(not trace.HasField("status") or trace.status.code != 0 for trace in of),
            *spent(trace for trace in of if trace.usage.source != USAGE_SOURCE_ESTIMATED),
            *spent(trace for trace in of if trace.usage.source == USAGE_SOURCE_ESTIMATED),
        )
        for key, of in sorted(groups.items())
    ]


def spent(traces: Iterable[Trace]) -> tuple[int, int, int]:
    """Tokens in, tokens out, and cost."""
    of = [trace.usage for trace in traces]
    return sum(one.input_tokens for one in of), sum(one.output_tokens for one in of), sum(o.cost_nano_usd for o in of)


def varied() -> list[Trace]:
    """Traces that differ in everything that a filter asks for."""
    generator = random.Random(4)
    pick = generator.choice
    made = []
    for number in range(120):
        code, reason, error = pick(ENDS)
        made.append(
            sample(
                id=trace_id(generator.randrange(1 << 128)),
                start_us=NOON + generator.randrange(40) * 1_000_000,
                method=pick(("CreateCompletion", "StreamCompletion", "CreateEmbeddings")),
                caller=pick(("checkout", "search", "")),
                provider=pick(("openai", "anthropic", "")),
                model=pick(("gpt-5.2", "fast", "claude")),
                asked_model=pick(("fast", "openai/gpt-5.2", "configs/main")),
                code=code,
                reason=reason,
                error=error,
                cost=pick((None, 0, 1_000, 5_000_000)),
                source=pick(UsageSource.values()),
                duration_us=None if code is None else pick((1_000, 2_000_000, 90_000_000)),
                labels={name: pick(("1", "2")) for name in ("team", "run", "Größe") if generator.random() < 0.6},
            )
        )
        assert number < 1000
    return made


ENDS: Sequence[tuple[int | None, str, str]] = (
    (0, "", ""),
    (0, "", ""),
    (14, "LLM_OVERLOADED", "the provider is overloaded: try again"),
    (8, "LLM_RATE_LIMITED", "Rate limit reached, try again in 20 s"),
    (8, "GATEWAY_RATE_LIMITED", "too many calls"),
    (1, "CANCELLED", ""),
    (None, "", ""),
)

FILTERS: Sequence[Filter] = (
    Filter(),
    Filter(start_time=timestamp(NOON + 20_000_000)),
    Filter(end_time=timestamp(NOON + 20_000_000)),
    Filter(start_time=timestamp(NOON + 10_000_000), end_time=timestamp(NOON + 12_000_000)),
    Filter(start_time=timestamp(NOON + 10_000_000), end_time=timestamp(NOON + 10_000_000)),
    Filter(provider="openai"),
    Filter(provider="nobody"),
    Filter(model="fast"),
    Filter(model="gpt-5.2"),
    Filter(model="no-such-model"),
    Filter(caller="search"),
    Filter(code=0),
    Filter(code=8),
    Filter(code=5),
    Filter(reason="LLM_RATE_LIMITED"),
    Filter(reason="LLM_NOT_FOUND"),
    Filter(failed=True),
    Filter(failed=False),
    Filter(labels={"team": "1"}),
    Filter(labels={"team": "1", "run": "2"}),
    Filter(labels={"Größe": "2"}),
    Filter(labels={"team": "3"}),
    Filter(min_cost_nano_usd=0),
    Filter(min_cost_nano_usd=1_001),
    Filter(min_cost_nano_usd=1 << 60),
    Filter(min_duration=duration(2_000_000)),
    Filter(min_duration=duration(3_600_000_000)),
    Filter(error_text="try AGAIN"),
    Filter(error_text="again limit"),
    Filter(error_text="unheard"),
    Filter(method="CreateEmbeddings"),
    Filter(method="CountTokens"),
)


def chosen(traces: Sequence[Trace], which: Filter) -> list[str]:
    """What the filter asks for, newest first, by reading all."""
    return names(newest_first([trace for trace in traces if matches(which, trace)]))
