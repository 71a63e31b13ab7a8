"""protoc plugin that writes the Python service stubs (`*_pb2_grpc.py`), so that buf can run it beside the others.

grpcio-tools carries that generator only inside its own protoc; this hands protoc's request through to it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2


def generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """Stubs for every requested file that holds a service; protoc's own words in `error` when it refuses."""
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    with_service = {file.name for file in request.proto_file if file.service}
    wanted = [name for name in request.file_to_generate if name in with_service]
    if not wanted:
        return response
    with tempfile.TemporaryDirectory() as scratch:
        descriptors, out = Path(scratch, "descriptors.binpb"), Path(scratch, "out")
        descriptors.write_bytes(descriptor_pb2.FileDescriptorSet(file=request.proto_file).SerializeToString())
        out.mkdir()
        options = f"{request.parameter}:" if request.parameter else ""
        protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--descriptor_set_in={descriptors}"]
        run = subprocess.run(
            [*protoc, f"--grpc_python_out={options}{out}", *wanted], capture_output=True, text=True, check=False
        )
        if run.returncode:
            response.error = run.stderr
        for path in sorted(out.rglob("*.py")):
            response.file.add(name=path.relative_to(out).as_posix(), content=path.read_text())
    return response


if __name__ == "__main__":
    incoming = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(incoming).SerializeToString())
