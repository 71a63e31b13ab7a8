"""PostgreSQL as a backend: what its contract with all others does not say. Everything runs against a real server."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from tests.services import Postgresql
from tests.traces.contract import Kept, names, newest_first, opened
from tests.traces.samples import NOON, sample, trace_id

from trunkline.v1alpha.trace_service_pb2 import TraceFilter
from trunkline_server.traces import open_backend
from trunkline_server.traces.base import BackendError, BackendUnavailable
from trunkline_server.traces.postgresql import schema

DAY = 86_400_000_000


@asynccontextmanager
async def kept_at(url: str, tmp_path: Path) -> AsyncIterator[Kept]:
    kept = await opened(open_backend(url, tmp_path))
    try:
        yield kept
    finally:
        await kept.reader.aclose()
        await kept.sink.aclose()


def name_of(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def spans(server: Postgresql, url: str) -> list[str]:
    """The days of the partitions."""
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'trunkline.{}'::regclass ORDER BY 1"
    traces, labels = (
        [line.partition(f"{table}_")[2] for line in server.sql(query.format(table), name_of(url)).split()]
        for table in ("traces", "trace_labels")
    )
    assert traces == labels
    return traces


# -- URLs -------------------------------------------------------------------------------------------------------------


def test_all_that_is_wrong_with_a_url_is_told_at_once_and_no_password(tmp_path: Path):
    with pytest.raises(BackendError) as told:
        open_backend("postgresql://me:hunter2@host:99999/?partition=week&timeout=soon&connections=0&sslmod=x", tmp_path)

    text = str(told.value)
    for part in ("port", "name the database", "partition=week", "day or month", "timeout=soon", "connections=0"):
        assert part in text
    assert "no such option: sslmod" in text
    assert "sslmode" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://host/database",
        "postgresql://user:p%40ss@[::1]:5433/database?sslmode=verify-full&partition=month",
        "postgresql://me@host-1:5432,host-2:5433/database?target_session_attrs=read-write",
        "postgresql:///database?host=/run/postgresql",
        "postgresql://?service=traces",
    ],
)
def test_urls_are_those_of_libpq(url: str, tmp_path: Path):
    assert open_backend(url, tmp_path).name == "postgresql"


async def test_a_password_that_is_wrong_is_a_mistake_and_is_not_shown(postgresql: Postgresql, tmp_path: Path):
    url = postgresql.database().replace("trunkline:", "trunkline:hunter2")

    with pytest.raises(BackendError, match="password authentication failed") as told:
        await open_backend(url, tmp_path).sink().open()
    assert "hunter2" not in str(told.value)


async def test_a_database_that_is_not_there_is_a_mistake(postgresql: Postgresql, tmp_path: Path):
    with pytest.raises(BackendError, match="does not exist"):
        await open_backend(postgresql.database() + "_no", tmp_path).sink().open()


async def test_a_role_that_may_not_make_tables_is_told_so(postgresql: Postgresql, tmp_path: Path):
    url = postgresql.database()
    postgresql.sql("CREATE ROLE guest LOGIN PASSWORD 'guest'", name_of(url))

    host = url.partition("@")[2]
    with pytest.raises(BackendError, match=r"permission denied for database .*42501"):
        await open_backend(f"postgresql://guest:guest@{host}", tmp_path).sink().open()


async def test_a_role_that_owns_the_schema_needs_no_other_right(postgresql: Postgresql, tmp_path: Path):
    url = postgresql.database()
    postgresql.sql(
        "CREATE ROLE writer LOGIN PASSWORD 'w'; CREATE SCHEMA trunkline AUTHORIZATION writer",
        name_of(url),
    )

    async with kept_at(f"postgresql://writer:w@{url.partition('@')[2]}", tmp_path) as kept:
        await kept.write(trace := sample())
        assert await kept.get(trace) == trace
    postgresql.sql("DROP SCHEMA trunkline CASCADE; DROP ROLE writer", name_of(url))


# -- the tables -------------------------------------------------------------------------------------------------------


def test_the_server_knows_the_last_revision():
    assert max(schema._known()) == schema.HEAD


async def test_servers_that_start_together_make_the_tables_once(postgresql: Postgresql, tmp_path: Path):
    url = postgresql.database()
    sinks = [open_backend(url, tmp_path).sink() for _ in range(6)]

    await asyncio.gather(*(sink.open() for sink in sinks))

    assert postgresql.sql("SELECT version_num FROM trunkline.traces_version", name_of(url)) == schema.HEAD
    await asyncio.gather(*(sink.aclose() for sink in sinks))


async def test_tables_of_a_newer_version_are_refused(postgresql: Postgresql, tmp_path: Path):
    url = postgresql.database()
    async with kept_at(url, tmp_path):
        postgresql.sql("UPDATE trunkline.traces_version SET version_num = '9999'", name_of(url))

    with pytest.raises(BackendError, match=r"revision 9999, made by a newer version"):
        await open_backend(url, tmp_path).sink().open()


async def test_tables_that_are_not_made_yet_are_a_state_that_passes(postgresql: Postgresql, tmp_path: Path):
    reader = open_backend(postgresql.database(), tmp_path).reader()
    assert reader is not None

    with pytest.raises(BackendUnavailable, match="does not exist"):
        await reader.get(trace_id(1), full=True)
    await reader.aclose()


def test_a_server_that_finds_its_tables_loads_no_alembic(postgresql: Postgresql, tmp_path: Path):
    script = (
        "import asyncio, sys; from pathlib import Path; from trunkline_server.traces import open_backend\n"
        "async def main():\n"
        "    sink = open_backend(sys.argv[1], Path()).sink(); await sink.open(); await sink.aclose()\n"
        "asyncio.run(main()); print({'alembic', 'sqlalchemy'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", script, postgresql.database()]

    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))

    assert "alembic" in first
    assert second == "set()\n"


# -- partitions -------------------------------------------------------------------------------------------------------


async def test_partitions_are_made_for_what_comes_and_ahead(postgresql: Postgresql, tmp_path: Path):
    url = postgresql.database()
    async with kept_at(url, tmp_path) as kept:
        ahead = spans(postgresql, url)
        assert len(ahead) == 2
        traces = [sample(start_us=NOON + day * DAY) for day in (0, 1, 5)]
        await kept.write(*traces)

        assert spans(postgresql, url) == sorted(["20261120_20261121", "20261121_20261122", "20261125_20261126", *ahead])
        assert names(await kept.all()) == names(newest_first(traces))


async def test_another_setting_goes_on_beside_the_partitions_of_the_one_before(postgresql: Postgresql, tmp_path: Path):
    url = postgresql.database()
    traces = [sample(start_us=NOON - 60 * DAY + number * 7 * DAY, labels={"a": "b"}) for number in range(12)]
    async with kept_at(url, tmp_path) as kept:
        await kept.write(*traces[::2])
    async with kept_at(url + "?partition=month", tmp_path) as kept:
        await kept.write(*traces)
        assert names(await kept.all(TraceFilter(labels={"a": "b"}), size=5)) == names(newest_first(traces))
    async with kept_at(url, tmp_path) as kept:
        more = [sample(start_us=NOON - 59 * DAY + number * DAY) for number in range(90)]
        await kept.write(*more)
        assert names(await kept.all()) == names(newest_first([*traces, *more]))


async def test_servers_make_the_same_partition_once(postgresql: Postgresql, tmp_path: Path):
    url = postgresql.database()
    stores = [await opened(open_backend(url, tmp_path)) for _ in range(4)]
    traces = [sample(start_us=NOON + number % 10 * DAY) for number in range(80)]

    await asyncio.gather(*(store.write(*traces[number * 10 :]) for number, store in enumerate(stores)))

    assert names(await stores[0].all()) == names(newest_first(traces))
    for store in stores:
        await store.reader.aclose()
        await store.sink.aclose()


async def test_pruning_drops_whole_days_and_the_rest_by_row(postgresql: Postgresql, tmp_path: Path):
    url = postgresql.database()
    async with kept_at(url, tmp_path) as kept:
        traces = [sample(start_us=NOON + number * DAY // 4, labels={"a": "b"}) for number in range(12)]
        await kept.write(*traces)

        gone = await kept.sink.prune((NOON + DAY + DAY // 4) / 1e6, None)

        assert gone == 5
        assert names(await kept.all()) == names(newest_first(traces[5:]))
        assert names(await kept.all(TraceFilter(labels={"a": "b"}))) == names(newest_first(traces[5:]))
        assert "20261120_20261121" not in spans(postgresql, url)
        assert "20261121_20261122" in spans(postgresql, url)
        # What comes late for a day that was dropped finds its place again.
        await kept.write(traces[0])
        assert len(await kept.all()) == 8


async def test_a_partition_that_another_server_dropped_is_made_again(postgresql: Postgresql, tmp_path: Path):
    url = postgresql.database()
    async with kept_at(url, tmp_path) as kept, kept_at(url, tmp_path) as other:
        await kept.write(sample(start_us=NOON))
        assert await other.sink.prune((NOON + DAY) / 1e6, None) == 1

        late = sample(start_us=NOON)
        with pytest.raises(BackendUnavailable):
            await kept.write(late)
        await kept.write(late)

        assert names(await kept.all()) == [late.name]


async def test_a_size_is_kept_by_dropping_the_oldest(postgresql: Postgresql, tmp_path: Path):
    url = postgresql.database()
    async with kept_at(url, tmp_path) as kept:
        traces = [sample(start_us=NOON + n // 10 * DAY + n, body=random.Random(n).randbytes(50_000)) for n in range(40)]
        await kept.write(*traces)

        assert await kept.sink.prune(0, 10_000_000) == 0
        assert await kept.sink.prune(0, 2_000_000) in {10, 20}
        left = await kept.all()
        assert names(left) == names(newest_first(traces))[: len(left)]
        assert await kept.sink.prune(0, 300_000) > 0
        left = await kept.all()
        assert names(left) == names(newest_first(traces))[: len(left)]
        assert 2 <= len(left) <= 6
        # The file is no smaller, and nothing more goes for that.
        assert await kept.sink.prune(0, 300_000) == 0


async def test_a_reader_that_is_long_at_it_is_not_waited_for_by_all(postgresql: Postgresql, tmp_path: Path):
    url = postgresql.database()
    async with kept_at(url, tmp_path) as kept:
        await kept.write(old := sample(start_us=NOON), young := sample(start_us=NOON + DAY))
        long = await asyncpg.connect(url)
        async with long.transaction():
            await long.fetch("SELECT id FROM trunkline.traces")
            await kept.sink.prune((NOON + DAY) / 1e6, None)
            # It could not drop the partition, so the rows went.
            assert names(await kept.all()) == [young.name]
        await long.close()
        assert await kept.get(old) is None
        await kept.sink.prune((NOON + DAY) / 1e6, None)
        assert "20261120_20261121" not in spans(postgresql, url)


async def test_a_vacuum_of_another_partition_keeps_no_old_one_from_going(postgresql: Postgresql, tmp_path: Path):
    url = postgresql.database()
    async with kept_at(url, tmp_path) as kept:
        await kept.write(sample(start_us=NOON), young := sample(start_us=NOON + DAY))
        vacuum = await asyncpg.connect(url)
        async with vacuum.transaction():
            # The lock of a vacuum.
            await vacuum.execute("LOCK TABLE trunkline.traces_20261121_20261122 IN SHARE UPDATE EXCLUSIVE MODE")
            assert await kept.sink.prune((NOON + DAY // 2) / 1e6, None) == 1
        await vacuum.close()
        assert names(await kept.all()) == [young.name]
        assert "20261120_20261121" not in spans(postgresql, url)


# -- outages ----------------------------------------------------------------------------------------------------------


async def test_what_a_crash_left_unsaid_is_written_once(postgresql: Postgresql, tmp_path: Path):
    """The server goes down at any moment of a batch, and the batch is sent again."""
    async with kept_at(postgresql.database() + "?timeout=5", tmp_path) as kept:
        batches = [[sample(labels={"a": "b"}) for _ in range(200)] for _ in range(12)]
        for number, batch in enumerate(batches):
            writing = asyncio.create_task(kept.write(*batch))
            if number % 4 == 1:
                await asyncio.sleep(0.004 * number)
                await asyncio.to_thread(postgresql.kill)
                await asyncio.to_thread(postgresql.start)
            try:
                await writing
            except BackendUnavailable:
                await again(kept, batch)
        assert names(await kept.all()) == names(newest_first([trace for batch in batches for trace in batch]))
        assert len(await kept.all(TraceFilter(labels={"a": "b"}))) == 12 * 200


async def again(kept: Kept, batch: Sequence[object]) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                return await kept.write(*batch)  # type: ignore[arg-type]  # they are traces
            except BackendUnavailable:
                await asyncio.sleep(0.05)


async def test_a_server_that_hangs_holds_nobody_longer_than_the_timeout(postgresql: Postgresql, tmp_path: Path):
    async with kept_at(postgresql.database() + "?timeout=1&connections=2", tmp_path) as kept:
        await kept.write(trace := sample())
        assert await kept.get(trace) == trace

        with postgresql.held():
            # More readers than connections: those that wait for one are held no longer either.
            began = time.monotonic()
            reads = [kept.reader.get(trace_id(n), full=True) for n in range(8)]
            ends = await asyncio.gather(*reads, return_exceptions=True)
            took = time.monotonic() - began
            # And a caller who leaves is not held at all.
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await kept.all()
            left = time.monotonic() - began

        assert [type(end) for end in ends] == [BackendUnavailable] * 8
        assert took < 3
        assert left < 2
        assert await kept.get(trace) == trace


async def test_a_server_that_hangs_is_written_to_again_later(postgresql: Postgresql, tmp_path: Path):
    async with kept_at(postgresql.database() + "?timeout=1", tmp_path) as kept:
        batch = [sample() for _ in range(20)]
        with postgresql.held():
            with pytest.raises(BackendUnavailable, match="no answer in time"):
                await kept.write(*batch)
            with pytest.raises(BackendUnavailable):
                await kept.write(*batch)
        await again(kept, batch)
        assert names(await kept.all()) == names(newest_first(batch))


async def test_a_server_that_is_down_is_unavailable_and_then_answers(postgresql: Postgresql, tmp_path: Path):
    async with kept_at(postgresql.database(), tmp_path) as kept:
        await kept.write(trace := sample())
        await asyncio.to_thread(postgresql.stop)
        with pytest.raises(BackendUnavailable):
            await kept.get(trace)
        with pytest.raises(BackendUnavailable):
            await kept.write(sample())
        await asyncio.to_thread(postgresql.start)
        assert await kept.get(trace) == trace
        await kept.write(sample())
        assert len(await kept.all()) == 2


async def test_many_first_readers_share_a_few_connections(postgresql: Postgresql, tmp_path: Path):
    url = postgresql.database()
    async with kept_at(url + "?connections=3", tmp_path) as kept:
        await kept.write(trace := sample())

        found = await asyncio.gather(*(kept.get(trace) for _ in range(40)))

        assert found == [trace] * 40
        count = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'trunkline'"
        )
        assert int(postgresql.sql(count, name_of(url))) == 3 + 1


# -- texts ------------------------------------------------------------------------------------------------------------


async def test_texts_that_no_index_takes_are_kept_and_found(postgresql: Postgresql, tmp_path: Path):
    async with kept_at(postgresql.database(), tmp_path) as kept:
        long = [letter + "日本語" * 1_000 + letter for letter in "ab"]
        traces = [
            sample(
                model=text,
                asked_model="x" + text,
                provider=text,
                caller=text,
                reason=text,
                code=3,
                error=f"no model {text}",
                labels={text: text},
                method=text,
                request_id=text,
            )
            for text in long
        ]
        await kept.write(*traces)

        for trace, text in zip(traces, long, strict=True):
            for which in (
                TraceFilter(model=text),
                TraceFilter(model="x" + text),
                TraceFilter(provider=text, caller=text),
                TraceFilter(reason=text),
                TraceFilter(labels={text: text}),
                TraceFilter(error_text=text),
                TraceFilter(method=text),
            ):
                assert names(await kept.all(which)) == [trace.name]
            assert await kept.get(trace) == trace


async def test_a_record_that_is_not_taken_is_told_from_a_server_that_is_down(postgresql: Postgresql, tmp_path: Path):
    url = postgresql.database()
    async with kept_at(url, tmp_path) as kept:
        postgresql.sql("ALTER TABLE trunkline.traces ALTER COLUMN model TYPE varchar(10)", name_of(url))

        with pytest.raises(ValueError, match="does not take a record") as told:
            await kept.write(sample(), sample(model="a-secret-too-long-for-it"))
        assert "secret" not in str(told.value)
        assert await kept.all() == []
        await kept.write(fits := sample())
        assert names(await kept.all()) == [fits.name]


async def test_a_time_out_of_all_bounds_is_kept(postgresql: Postgresql, tmp_path: Path):
    async with kept_at(postgresql.database(), tmp_path) as kept:
        traces = [sample(start_us=us) for us in (-62_135_596_800_000_000, 0, 253_402_300_799_000_000)]
        await kept.write(*traces)

        for trace in traces:
            assert await kept.get(trace) == trace
        assert len(await kept.all()) == 3
