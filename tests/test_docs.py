"""The pages say what is: tables as the code has them, links that lead somewhere, configurations that load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import docs, docs_configuration
from trunkline.v1.error_pb2 import ErrorReason
from trunkline_server import app as composition
from trunkline_server import config, errors, providers

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "clients/*/*.md", "bench/*.md")
    for path in ROOT.glob(pattern)
)


def blocks(page: str, language: str) -> list[str]:
    """The page's code in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """What may stand after # in a link to the page."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: str) -> list[str]:
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            dead.append(link)
    return dead


def test_the_tables_are_what_the_code_says():
    assert list(docs.stale()) == [], "run `make docs`"


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page: str):
    assert dead_links(page) == []


def test_every_setting_says_what_it_is():
    silent = [
        f"{'.'.join(section.path)}.{name}"
        for section in docs_configuration.sections()
        for name, comment in docs_configuration.described(section.model).items()
        if not comment
    ]

    assert silent == []


@pytest.mark.parametrize(
    ("page", "text"), [(page, text) for page in PAGES for text in blocks(page, "yaml") if not text.startswith("# buf")]
)
async def test_a_configuration_that_a_page_prints_is_one(
    page: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    key = "0123456789abcdef0123456789abcdef"
    for name in re.findall(r"api_key_env: (\w+)", text):
        monkeypatch.setenv(name, key)
    for path in re.findall(r"_file: ([^\s,}]+)", text):
        file = tmp_path / Path(path).name
        file.write_text(key)
        text = text.replace(path, str(file))
    written = tmp_path / "trunkline.yaml"
    written.write_text(text)

    settings = config.load(written)

    app = composition.build(settings, {})
    assert set(app.engine.providers) == set(settings.providers or ())
    await app.engine.aclose()


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("TRUNKLINE_DRAIN__GRACE", "10s", lambda settings: settings.drain.grace == 10),
        ("TRUNKLINE_LISTEN", "127.0.0.1:7", lambda settings: settings.listen == "127.0.0.1:7"),
        ("TRUNKLINE_PROVIDERS__GPU__KIND", "vllm", lambda settings: settings.providers["gpu"].kind == "vllm"),
        ("TRUNKLINE_FORWARD_METADATA", '["x-tenant"]', lambda settings: settings.forward_metadata == ("x-tenant",)),
        (
            "TRUNKLINE_CALLERS",
            '[{"name": "ci", "api_key_env": "CI_KEY"}]',
            lambda settings: [caller.name for caller in settings.callers] == ["ci"],
        ),
    ],
)
def test_settings_come_from_the_environment_by_the_names_of_the_page(name, value, read, monkeypatch):
    monkeypatch.setenv("CI_KEY", "0123456789abcdef0123456789abcdef")
    monkeypatch.setenv(name, value)

    assert read(config.load(None))


def test_every_reason_stands_in_the_page_of_errors_once():
    listed = re.findall(r"^\| `(\w+)` \| `[A-Z_]+` \|", (ROOT / "docs/errors.md").read_text(), flags=re.MULTILINE)

    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118
    assert sorted(listed) == sorted(reasons)
    assert {kind.reason for kind in errors.classes()} == reasons


def test_every_kind_of_provider_stands_in_its_page():
    listed = set(re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs/providers.md").read_text(), flags=re.MULTILINE))

    assert listed == {*providers.KINDS, providers.FAKE, "local"}
