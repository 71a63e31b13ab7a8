"""Backends by URL: what is wrong with one is told before anything is served."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from trunkline_server import traces
from trunkline_server.traces import Scheme, open_backend
from trunkline_server.traces.base import BackendError, BackendUnavailable
from trunkline_server.traces.sqlite import SqliteBackend


@pytest.mark.parametrize("url", ["sokcet:/run/x", "sqlite", "", "postgres//u:secret@h/db", "file:///x"])
def test_a_url_of_no_scheme_names_the_schemes_and_not_itself(url: str, tmp_path: Path):
    with pytest.raises(BackendError) as told:
        open_backend(url, tmp_path)
    assert "sqlite:[FILE]" in str(told.value)
    assert "secret" not in str(told.value)


def test_a_missing_driver_is_named_with_the_line_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "needy_backend.py").write_text("import no_such_driver\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(traces, "SCHEMES", {"needy": Scheme("needy_backend:Needy", "needy:", extra="needy")})
    with pytest.raises(BackendError, match=r"no_such_driver.*pip install 'trunkline-server\[needy\]'"):
        open_backend("needy:", tmp_path)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:", "traces.db"),
        ("sqlite:calls.db", "calls.db"),
        ("sqlite:/var/x/calls.db", "/var/x/calls.db"),
        ("sqlite:///var/x/calls.db", "/var/x/calls.db"),
    ],
)
def test_sqlite_names_a_file(url: str, path: str, tmp_path: Path):
    backend = open_backend(url, tmp_path)
    assert isinstance(backend, SqliteBackend)
    assert backend.path == tmp_path / path


@pytest.mark.parametrize("url", ["sqlite://host/x.db", "sqlite://host", "sqlite:x.db?mode=ro", "sqlite:."])
def test_sqlite_refuses_what_is_no_file(url: str, tmp_path: Path):
    with pytest.raises(BackendError, match="sqlite:FILE"):
        open_backend(url, tmp_path)


async def test_a_file_that_cannot_be_written_is_a_state_that_passes(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("not a folder")
    sink = open_backend(f"sqlite:{path}/traces.db", tmp_path).sink()
    with pytest.raises(BackendUnavailable):
        await sink.open()
    path.unlink()
    await sink.open()
    await sink.aclose()


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path):
    backend = open_backend("sqlite:", tmp_path)
    sink = backend.sink()
    await sink.open()
    await sink.aclose()

    with sqlite3.connect(tmp_path / "traces.db") as connection:
        connection.execute("PRAGMA user_version = 1000")
    connection.close()
    with pytest.raises(BackendError, match="newer version"):
        await backend.sink().open()


async def test_records_are_readable_by_their_owner_only(tmp_path: Path):
    sink = open_backend("sqlite:a/traces.db", tmp_path).sink()
    await sink.open()
    await sink.aclose()
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0
    assert (tmp_path / "a" / "traces.db").stat().st_mode & 0o077 == 0
