"""The examples of the three languages, against one gateway: they print the same."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRANSCRIPT = (Path(__file__).parent / "transcript.txt").read_text()
#: Set where everything must run: a missing toolchain is an error there.
REQUIRED = any(os.environ.get(name, "") not in ("", "0", "false") for name in ("CI", "REQUIRE_ALL"))


@dataclass(frozen=True)
class Language:
    name: str
    folder: str
    #: Run once, before.
    prepare: tuple[str, ...]
    run: tuple[str, ...]
    needs: tuple[str, ...] = ()


LANGUAGES = (
    Language("python", ".", (), (sys.executable, "examples/python")),
    Language("go", "examples/go", (), ("go", "run", "."), needs=("go",)),
    Language(
        "typescript",
        "examples/typescript",
        ("npm", "ci", "--silent", "--no-fund", "--no-audit"),
        ("npm", "start", "--silent"),
        needs=("node", "npm"),
    ),
)


def run(language: Language, command: tuple[str, ...], address: str) -> str:
    """What it prints. Fails with all that it said if it does not end well."""
    environment = {**os.environ, "TRUNKLINE_ADDRESS": address}
    ended = subprocess.run(
        command,
        cwd=ROOT / language.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, f"{' '.join(command)}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


@pytest.mark.timeout(600)  # a first build of Go's and Node's dependencies
@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_the_examples_print_the_transcript(language: Language, address: str):
    missing = [tool for tool in language.needs if shutil.which(tool) is None]
    if missing and not REQUIRED:
        pytest.skip(f"{language.name} ({missing[0]} not found)")
    assert not missing, f"{missing[0]} not found, and everything must run here"
    if language.prepare:
        run(language, language.prepare, address)

    printed = run(language, language.run, address)

    difference = difflib.unified_diff(TRANSCRIPT.splitlines(), printed.splitlines(), "transcript", language.name)
    assert printed == TRANSCRIPT, "\n".join(difference)
