"""What only the file has: its size."""

from __future__ import annotations

import random
from pathlib import Path

from tests.traces.contract import names, newest_first, opened
from tests.traces.samples import NOON, sample

from trunkline_server.traces import open_backend


async def test_beyond_its_size_the_oldest_records_go_and_the_file_shrinks(tmp_path: Path):
    generator = random.Random(4)
    kept = await opened(open_backend("sqlite:", tmp_path))
    traces = [
        sample(start_us=NOON + n, body=generator.randbytes(20_000), error="no", code=13, labels={"a": "b"})
        for n in range(200)
    ]
    for start in range(0, 200, 20):
        await kept.write(*traces[start : start + 20])
    path = tmp_path / "traces.db"
    assert await kept.sink.prune(0.0, None) == 0
    pruned = await kept.sink.prune(0.0, 2_000_000)
    left = await kept.all()
    assert 50 < len(left) < 120
    assert pruned == 200 - len(left)
    assert names(left) == names(newest_first(traces))[: len(left)]
    assert path.stat().st_size < 2_200_000
    assert await kept.sink.prune(0.0, 2_000_000) == 0
    await kept.reader.aclose()
    await kept.sink.aclose()
