"""The settings of records: their short forms, and every mistake by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline_server import config, recording

DAY = 86_400.0


def loaded(folder: Path, text: str) -> config.TraceSettings:
    path = folder / "trunkline.yaml"
    path.write_text(text)
    return config.load(path).traces


def urls(traces: config.TraceSettings) -> list[str]:
    return [backend.address for backend in traces.backends]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["sqlite:"]),
        ("traces: off", []),
        ("traces: []", []),
        ("traces: postgresql://h/db", ["postgresql://h/db"]),
        ("traces: [sqlite:, unix:/run/x.sock]", ["sqlite:", "unix:/run/x.sock"]),
        ("traces:\n- sqlite:\n- postgresql://h/db", ["sqlite:", "postgresql://h/db"]),
        ("traces: {backends: [sqlite:x.db], keep: 7d}", ["sqlite:x.db"]),
        ("traces: {capture: off}", ["sqlite:"]),
    ],
)
def test_short_forms_and_long_ones(tmp_path: Path, text: str, expected: list[str]):
    assert urls(loaded(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("off", []), ("sqlite:/x.db", ["sqlite:/x.db"]), ('["sqlite:", "unix:/x"]', ["sqlite:", "unix:/x"])],
)
def test_the_environment_says_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, expected: list[str]):
    monkeypatch.setenv("TRUNKLINE_TRACES", value)
    assert urls(loaded(tmp_path, "")) == expected


def test_one_setting_of_the_environment_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRUNKLINE_TRACES__KEEP", "3d")
    traces = loaded(tmp_path, "traces: [postgresql://h/db]")
    assert (urls(traces), traces.keep) == (["postgresql://h/db"], 3 * DAY)


def test_a_url_with_a_password_is_named_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACES", "postgresql://u:hunter22@h/db")
    path = tmp_path / "trunkline.yaml"
    path.write_text("traces: [{url_env: TRACES}]")
    settings = config.load(path)
    assert urls(settings.traces) == ["postgresql://u:hunter22@h/db"]
    assert "hunter22" not in settings.model_dump_json() + repr(settings)
    assert recording.passwords_of(settings)[0] == "hunter22"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("traces: [postgresql://u:hunter22@h/db]", "traces.backends.0: write no password in the configuration"),
        ("traces: ['postgresql://h/db?password=hunter22']", "traces.backends.0: write no password"),
        ("traces: [{}]", "traces.backends.0: set one of url, url_env and url_file"),
        ("traces: [{url_env: NOT_SET}]", "traces.backends.0: the environment variable NOT_SET (url_env) is not set"),
        ("traces: {keep: 1x}", "traces.keep: write a number of seconds"),
        ("traces: {capture: some}", "traces.capture: Input should be 'full', 'no_content' or 'off'"),
        ("traces: {redact: ['a(']}", "traces.redact.0: 'a(' is not a regular expression"),
        ("traces: {spool_bytes: 1}", "traces.spool_bytes: Input should be greater than or equal to 1000000"),
        ("traces: {nothing: 1}", "traces.nothing: no such setting"),
    ],
)
def test_a_mistake_names_its_field(tmp_path: Path, text: str, told: str):
    with pytest.raises(config.ConfigError) as error:
        loaded(tmp_path, text)
    assert told in str(error.value)
    assert "hunter22" not in str(error.value)


def test_the_state_directory_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = config.load(None)
    assert recording.state_dir(settings, {"XDG_STATE_HOME": "/var/x"}) == Path("/var/x/trunkline")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert recording.state_dir(settings, {}) == Path("/home/somebody/.local/state/trunkline")
    assert recording.state_dir(config.load(None, state_dir=tmp_path), {}) == tmp_path
