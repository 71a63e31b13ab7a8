"""Writes the tables of docs/ that the code knows best, or with --check says which pages are stale.

A page holds a table between two marks; what stands outside them is written by hand:

    <!-- begin NAME: written by `make docs` -->
    <!-- end NAME -->
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tools import docs_configuration, docs_dashboard, docs_errors, docs_providers, docs_sidecar, docs_telemetry

ROOT = Path(__file__).resolve().parents[1]

Blocks = Mapping[str, str]

#: Page to what makes its blocks, by their names.
PAGES: Mapping[str, Callable[[], Blocks]] = {
    "docs/configuration.md": docs_configuration.blocks,
    "docs/errors.md": docs_errors.blocks,
    "docs/operations.md": docs_telemetry.blocks,
    "docs/providers.md": docs_providers.blocks,
}

#: Files that are made as a whole.
FILES: Mapping[str, Callable[[], str]] = {
    "deploy/grafana/dashboard.json": docs_dashboard.dashboard,
    "docs/trace-lines.schema.json": docs_sidecar.schema,
}

_BLOCK = re.compile(r"(<!-- begin (\w+): [^\n]* -->\n).*?(<!-- end \2 -->)", flags=re.DOTALL)


def written(page: str, blocks: Blocks) -> str:
    """The page with its blocks as they should be. Raises ValueError for a block that the page lacks."""
    text = (ROOT / page).read_text()
    found = {name for _, name, _ in _BLOCK.findall(text)}
    if found != set(blocks):
        raise ValueError(f"{page} has blocks {sorted(found)}; there should be {sorted(blocks)}")
    return _BLOCK.sub(lambda match: f"{match[1]}\n{blocks[match[2]].strip()}\n\n{match[3]}", text)


def stale() -> dict[str, str]:
    """Pages that are not what the code says, and what they should be."""
    pages = {page: written(page, make()) for page, make in PAGES.items()}
    pages |= {file: make() for file, make in FILES.items()}
    return {page: text for page, text in pages.items() if _text(ROOT / page) != text}


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a page is stale")
    arguments = parser.parse_args()
    pages = stale()
    if arguments.check:
        for page in pages:
            print(f"stale: {page}; run `make docs` and commit the result", file=sys.stderr)
        return 1 if pages else 0
    for page, text in pages.items():
        (ROOT / page).write_text(text)
    print(f"wrote {len(PAGES) + len(FILES)} pages, {len(pages)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
