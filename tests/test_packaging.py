"""What a user installs: the locks, the versions that the stubs promise, and the two wheels."""

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
CLIENTS = ("go", "python", "typescript")
PROJECTS = {"trunkline-server": ROOT, "trunkline-client": ROOT / "clients" / "python"}


def project(directory: Path) -> dict[str, Any]:
    return tomllib.loads((directory / "pyproject.toml").read_text())


def floors(directory: Path) -> dict[str, str]:
    """The oldest version that a package promises to work with, by dependency."""
    requirements = map(Requirement, project(directory)["project"]["dependencies"])
    return {r.name: s.version for r in requirements for s in r.specifier if s.operator == ">="}


def closure(name: str) -> set[str]:
    """Everything that installing `name` brings along, itself left out."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for line in metadata.requires(waiting.pop()) or ():
            requirement = Requirement(line)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            key = canonicalize_name(requirement.name)
            if wanted and key not in found:
                found.add(key)
                waiting.append(key)
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_pins_and_hashes_everything_and_names_no_address(lock: Path):
    text = lock.read_text()
    entries = re.split(r"\n(?=[a-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))

    assert entries
    assert not re.search(r"://|^-|\s@\s|file:", text, flags=re.MULTILINE)
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("name", PROJECTS)
def test_the_servers_lock_satisfies_what_a_package_declares(name: str):
    pinned = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / "requirements/server.txt").read_text(), re.MULTILINE))
    declared = [Requirement(line) for line in project(PROJECTS[name])["project"]["dependencies"]]

    assert declared
    for requirement in declared:
        if requirement.name not in PROJECTS:
            assert requirement.name in pinned
            assert requirement.specifier.contains(pinned[requirement.name], prereleases=True), requirement


@pytest.mark.parametrize("lock", ["clients/typescript", "examples/typescript"])
def test_a_node_lock_hashes_everything_and_names_no_address(lock: str):
    packages = json.loads((ROOT / lock / "package-lock.json").read_text())["packages"]
    installed = {path: entry for path, entry in packages.items() if "node_modules/" in path and not entry.get("link")}

    assert installed
    assert not [path for path, entry in packages.items() if "://" in entry.get("resolved", "")]
    assert not [path for path, entry in installed.items() if "integrity" not in entry]


def test_every_package_carries_the_licence():
    licence = (ROOT / "LICENSE").read_bytes()

    assert [name for name in CLIENTS if (ROOT / "clients" / name / "LICENSE").read_bytes() != licence] == []


def test_no_lock_brings_a_peer_along():
    assert not [lock.name for lock in LOCKS if re.search(r"^litellm\b", lock.read_text(), flags=re.MULTILINE)]


def test_the_client_promises_the_grpc_that_its_stubs_were_made_with():
    (tools,) = (r for r in project(ROOT)["dependency-groups"]["codegen"] if r.startswith("grpcio-tools=="))
    stubs = (PROJECTS["trunkline-client"] / "trunkline/v1/completion_service_pb2_grpc.py").read_text()
    made_with = re.search(r"GRPC_GENERATED_VERSION = '(.+)'", stubs)

    assert made_with
    assert tools == f"grpcio-tools=={made_with[1]}"
    assert made_with[1].removesuffix(".0") == floors(PROJECTS["trunkline-client"])["grpcio"].removesuffix(".0")
    assert floors(PROJECTS["trunkline-client"])["grpcio"] == floors(ROOT)["grpcio"]


def test_the_client_promises_the_protobuf_that_its_stubs_were_made_with():
    stubs = (PROJECTS["trunkline-client"] / "trunkline/v1/completion_pb2.py").read_text()
    made_with = re.search(r"Protobuf Python Version: (\S+)", stubs)

    assert made_with
    assert {floors(directory)["protobuf"] for directory in PROJECTS.values()} == {made_with[1]}


def test_the_client_brings_grpc_and_protobuf_and_nothing_else():
    assert closure("trunkline-client") == {"googleapis-common-protos", "grpcio", "protobuf", "typing-extensions"}


def test_importing_the_client_loads_nothing_of_the_server_or_its_dependencies():
    probe = "import sys, trunkline, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    output = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout

    loaded = set(json.loads(output))
    assert "trunkline" in loaded
    assert not loaded & {"trunkline_server", "httpx", "aiohttp", "pydantic", "typer", "rich", "structlog", "orjson"}


@pytest.mark.parametrize(
    ("name", "expected", "outside"),
    [
        ("trunkline-client", {"trunkline/py.typed", "trunkline/v1/completion_pb2.pyi"}, "trunkline/"),
        ("trunkline-server", {"trunkline_server/__init__.py", "trunkline_server/py.typed"}, "trunkline_server/"),
    ],
)
def test_a_wheel_holds_its_package_and_nothing_beside_it(name: str, expected: set[str], outside: str, tmp_path: Path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=PROJECTS[name],
        check=True,
        capture_output=True,
    )

    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert expected <= held
    assert not [path for path in held if not path.startswith(outside) and ".dist-info/" not in path]


#: Packages whose modules share a first name, by module.
SHARED = {
    "google.auth": "google-auth",
    "google.protobuf": "protobuf",
    "google.rpc": "googleapis-common-protos",
    "opentelemetry.exporter.otlp.proto.grpc": "opentelemetry-exporter-otlp-proto-grpc",
    "opentelemetry.instrumentation.grpc": "opentelemetry-instrumentation-grpc",
    "opentelemetry.proto": "opentelemetry-proto",
    "opentelemetry.sdk": "opentelemetry-sdk",
    "opentelemetry.trace": "opentelemetry-api",
}

#: What no source imports: an extra brings it for the user's program, or SQLAlchemy loads it by a database's URL.
OFFERED = {"trunkline-client": {"opentelemetry-instrumentation-grpc"}, "trunkline-server": {"aiosqlite"}}


@pytest.mark.parametrize(
    ("name", "sources"), [("trunkline-server", "server"), ("trunkline-client", "clients/python/trunkline")]
)
def test_a_package_imports_what_it_declares_and_declares_what_it_imports(name: str, sources: str):
    trees = [ast.parse(path.read_text()) for path in (ROOT / sources).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    top = {path.split(".")[0] for path in imported} - set(sys.stdlib_module_names)
    # The embedded model is found at run time or left out; shared names are looked at below.
    brought = {**metadata.packages_distributions(), "trunkline": ["trunkline-client"], "trunkline_server": [name]}
    modules = top - {"google", "opentelemetry", "xllamacpp"}
    needed: set[str] = {canonicalize_name(package) for module in modules for package in brought.get(module, [module])}
    needed |= {package for module, package in SHARED.items() if any(path.startswith(module) for path in imported)}

    described = project(PROJECTS[name])["project"]
    extras = [line for lines in described.get("optional-dependencies", {}).values() for line in lines]
    declared = {canonicalize_name(Requirement(line).name) for line in described["dependencies"] + extras}
    assert needed - {name} == declared - {name, *OFFERED.get(name, ())}
