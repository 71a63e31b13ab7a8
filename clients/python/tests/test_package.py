"""What is shipped: the wheel alone, and the twin that a script writes."""

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UNASYNC = ROOT / "tools" / "unasync.py"

# Refuses every import that a bare installation of the wheel would not have.
ALONE = """
import importlib.abc, sys
allowed = {"trunkline", "grpc", "google", "typing_extensions"} | set(sys.stdlib_module_names)
class Bare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Bare())
sys.path.insert(0, sys.argv[1])
import trunkline
assert trunkline.__file__.startswith(sys.argv[1]), trunkline.__file__
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what the wheel holds."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def alone(wheel: Path, program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ALONE + program, str(wheel)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=wheel)


def test_the_wheel_asks_for_grpc_and_protobuf_and_nothing_else(wheel: Path) -> None:
    metadata = Parser().parsestr(next(wheel.glob("*.dist-info/METADATA")).read_text())
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]

    assert sorted(line.partition(">")[0] for line in required) == ["googleapis-common-protos", "grpcio", "protobuf<8,"]
    assert (wheel / "trunkline" / "py.typed").exists()


def test_the_wheel_works_with_what_it_asks_for(wheel: Path) -> None:
    program = (
        "client = trunkline.Client('127.0.0.1:1', timeout=5)\n"
        "try:\n    client.complete([trunkline.user('a')], model='m', tools=[trunkline.tool('f', parameters={})])\n"
        "except trunkline.Unreachable:\n    print('as expected')\n"
    )
    run = alone(wheel, program)

    assert (run.stdout, run.stderr) == ("as expected\n", "")


def test_the_command_says_what_it_needs(wheel: Path) -> None:
    run = alone(wheel, "from trunkline.cli import main; main()")

    assert run.returncode == 2
    assert run.stderr == "trunkline: the command line needs typer and rich: pip install 'trunkline-client[cli]'\n"


def test_the_blocking_client_is_current() -> None:
    pytest.importorskip("ruff")
    run = subprocess.run([sys.executable, str(UNASYNC), "--check"], capture_output=True, text=True, check=False)

    assert (run.returncode, run.stderr) == (0, "")


def test_the_twin_reads_as_if_written_by_hand() -> None:
    sys.path.insert(0, str(UNASYNC.parent))
    try:
        from unasync import unasync  # type: ignore[import-not-found]  # a script
    finally:
        sys.path.pop(0)
    source = '''"""An async thing; `await` in a text stays."""
async def read(self) -> AsyncIterator[str]:
    async with aclosing(self._read()) as lines, grpc.aio.insecure_channel("async") as channel:
        x = [await line async for line in lines]  # await
    task.cancel()  # async only
    await asyncio.sleep(1)
'''

    assert (
        unasync(source)
        == '''"""An async thing; `await` in a text stays."""
def read(self) -> Iterator[str]:
    with closing(self._read()) as lines, grpc.insecure_channel("sync") as channel:
        x = [line for line in lines]  # await
    time.sleep(1)
'''
    )
