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
    run: tuple[str, ...]
    needs: tuple[str, ...] = ()


LANGUAGES = (
    Language("python", ".", (sys.executable, "examples/python")),
    Language("go", "examples/go", ("go", "run", "."), needs=("go",)),
    Language("typescript", "examples/typescript", ("npm", "start", "--silent"), needs=("node", "npm")),
)


def run(language: Language, address: str) -> str:
    """What it prints. Fails with all that it said if it does not end well."""
    ended = subprocess.run(
        language.run,
        cwd=ROOT / language.folder,
        env={**os.environ, "TRUNKLINE_ADDRESS": address},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, f"{' '.join(language.run)}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


@pytest.mark.timeout(600)  # a first build of what Go depends on
@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_the_examples_print_the_transcript(language: Language, address: str):
    missing = [tool for tool in language.needs if shutil.which(tool) is None]
    if missing and not REQUIRED:
        pytest.skip(f"{language.name} ({missing[0]} not found)")
    assert not missing, f"{missing[0]} not found, and everything must run here"

    printed = run(language, address)

    difference = difflib.unified_diff(TRANSCRIPT.splitlines(), printed.splitlines(), "transcript", language.name)
    assert printed == TRANSCRIPT, "\n".join(difference)
