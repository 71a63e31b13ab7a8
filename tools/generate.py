"""Writes the committed stubs of the three languages from proto/, or with --check says how they differ from it.

Generates beside the tree first: a failing plugin leaves the stubs as they are, and only what changed is rewritten.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FRESH = ROOT / ".build" / "generated"

# Where the stubs live, and which files there are generated: all else in these folders is written by hand.
STUBS = {
    f"{folder}/{version}": patterns
    for version in ("v1", "v1alpha")
    for folder, patterns in {
        "clients/python/trunkline": ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi"),
        "clients/go/trunkline": ("*.pb.go",),
        "clients/typescript/src/trunkline": ("*_pb.ts",),
    }.items()
}


def generated_below(base: Path) -> dict[str, bytes]:
    """Every generated file below `base`: path from there → content."""
    return {
        path.relative_to(base).as_posix(): path.read_bytes()
        for folder, patterns in STUBS.items()
        for pattern in patterns
        for path in (base / folder).glob(pattern)
    }


def without_orphans(files: dict[str, bytes]) -> dict[str, bytes]:
    """mypy-protobuf types the service stubs of every file, also of those that hold no service and so have none."""
    return {name: text for name, text in files.items() if not name.endswith("_grpc.pyi") or name[:-1] in files}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--buf", default="buf", help="the buf program")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the stubs are stale")
    arguments = parser.parse_args()

    shutil.rmtree(FRESH, ignore_errors=True)
    run = subprocess.run([arguments.buf, "generate", "--output", FRESH], cwd=ROOT, check=False)
    if run.returncode:
        return run.returncode
    wanted, present = without_orphans(generated_below(FRESH)), generated_below(ROOT)
    stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    if arguments.check:
        for name in stale:
            print(f"stale: {name}", file=sys.stderr)
        if stale:
            print("the stubs are not what proto/ says; run `make generate` and commit the result", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        target = ROOT / name
        if name not in wanted:
            target.unlink()
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(wanted[name])
    print(f"generated {len(wanted)} files, {len(stale)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
