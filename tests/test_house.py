"""What holds for every file of the project."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$|\.pb\.go$|_pb\.ts$|^requirements/.*\.txt$|package-lock\.json$|go\.sum$")
PICTURES = re.compile(r"^docs/images/[\w-]+\.png$")
LONGEST = 600


def tracked() -> list[str]:
    """Every file under version control but the docs' pictures; a tree without git (a source archive) is not checked."""
    run = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.skip("not a git checkout")
    return [name for name in run.stdout.splitlines() if (ROOT / name).is_file() and not PICTURES.match(name)]


def make_targets() -> set[str]:
    phony = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    return {target for line in phony for target in line.split()}


def test_every_file_is_text():
    assert not [name for name in tracked() if b"\0" in (ROOT / name).read_bytes()]


def test_no_written_file_is_longer_than_a_reader_can_hold():
    written = [name for name in tracked() if not GENERATED.search(name) and not name.endswith("LICENSE")]

    lengths = {name: len((ROOT / name).read_text().splitlines()) for name in written}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_generated_files_are_marked_as_such():
    attributes = (ROOT / ".gitattributes").read_text().splitlines()
    marked = [line.split()[0] for line in attributes if "linguist-generated=true" in line]
    stubs = [name for name in tracked() if re.search(r"_pb2(_grpc)?\.pyi?$|\.pb\.go$|_pb\.ts$", name)]

    assert stubs
    assert not [name for name in stubs if not any(Path(name).match(pattern) for pattern in marked)]


def test_nothing_is_left_to_do_in_a_comment():
    mark = re.compile(r"(#|//)\s*(TODO|FIXME|XXX|HACK)\b")

    assert not [name for name in tracked() if not name.endswith("LICENSE") and mark.search((ROOT / name).read_text())]


def test_every_make_command_that_a_page_prints_exists():
    targets = make_targets()
    unknown = {}
    for page in (name for name in tracked() if name.endswith(".md")):
        code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", (ROOT / page).read_text(), flags=re.DOTALL))
        named = re.findall(r"\bmake ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)*)", code)
        unknown[page] = {target for line in named for target in line.split()} - targets

    assert targets
    assert {page: missing for page, missing in unknown.items() if missing} == {}
