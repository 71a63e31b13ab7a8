"""Writes the blocking twin of every asynchronous source: `python tools/unasync.py [--check]`.

A name is replaced where it is a whole token, a string where it is a whole string literal, and ruff sorts and formats
the rest, so the twin reads as if it had been written by hand. A line that ends with `# async only` has no twin.
"""

import argparse
import io
import subprocess
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What is written asynchronously, and where its twin goes.
TREES = {"trunkline/_async": "trunkline/_sync", "tests/_async": "tests/_sync"}
HEADER = "# Written by tools/unasync.py from {source}: change that file, then `make generate`.\n"
ASYNC_ONLY = "# async only"
# Removed together with the white space after them.
DROPPED = {"async", "await"}
NAMES = {
    "AsyncClient": "Client",
    "AsyncCompletionStream": "CompletionStream",
    "AsyncGenerator": "Generator",
    "AsyncIterator": "Iterator",
    "AsyncTraces": "Traces",
    "CompletionServiceAsyncStub": "CompletionServiceStub",
    "ModelServiceAsyncStub": "ModelServiceStub",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "_async": "_sync",
    "aclose": "close",
    "aiter": "iter",
    "anext": "next",
    "aclosing": "closing",
    "asyncio": "time",
}
# A dotted name is several tokens: the middle ones go.
DOTTED = {("grpc", ".", "aio", "."): ("grpc", ".")}
TEXTS = {"async": "sync"}


def unasync(source: str) -> str:
    """The blocking twin of `source`. Idempotent on what is blocking already."""
    kept = [line for line in source.splitlines(keepends=True) if not line.rstrip().endswith(ASYNC_ONLY)]
    lines = "".join(kept).splitlines(keepends=True)
    tokens = [token for token in tokenize.generate_tokens(io.StringIO("".join(kept)).readline) if token.string]
    edits: list[tuple[tuple[int, int], tuple[int, int], str]] = []
    index = 0
    while index < len(tokens):
        token = tokens[index]
        dotted = next((key for key in DOTTED if tuple(t.string for t in tokens[index : index + len(key)]) == key), None)
        if dotted:
            edits.append((token.start, tokens[index + len(dotted) - 1].end, "".join(DOTTED[dotted])))
            index += len(dotted)
            continue
        if token.type == tokenize.NAME and token.string in DROPPED:
            edits.append((token.start, tokens[index + 1].start, ""))
        elif token.type == tokenize.NAME and token.string in NAMES:
            edits.append((token.start, token.end, NAMES[token.string]))
        elif token.type == tokenize.STRING and token.string.strip("\"'") in TEXTS:
            edits.append((token.start, token.end, token.string.replace(*next(iter(TEXTS.items())))))
        index += 1
    for (row, start), (_, end), text in reversed(edits):
        lines[row - 1] = lines[row - 1][:start] + text + lines[row - 1][end:]
    return "".join(lines)


def tidy(text: str, path: Path) -> str:
    """`text` as the project's linter wants it: shorter names sort and wrap differently."""
    for command in (["check", "--quiet", "--fix-only", "--select", "I,F401"], ["format", "--quiet"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(path), "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout
    return text


def twins() -> dict[Path, str]:
    """Path and text of each twin."""
    written = {}
    for source_tree, target_tree in TREES.items():
        for source in sorted((ROOT / source_tree).glob("*.py")):
            header = HEADER.format(source=source.relative_to(ROOT).as_posix())
            path = ROOT / target_tree / source.name
            written[path] = tidy(header + unasync(source.read_text()), path)
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a twin is not current")
    check: bool = parser.parse_args().check
    wanted = twins()
    on_disk = {path for tree in TREES.values() for path in (ROOT / tree).glob("*.py")}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    orphans = sorted(on_disk - set(wanted))
    if check:
        for path in [*stale, *orphans]:
            print(f"not current: {path.relative_to(ROOT)}; run `make generate`", file=sys.stderr)
        return 1 if stale or orphans else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    for path in orphans:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
