"""A caller made of gRPC alone, as Python has it, that pings every so many seconds: ADDRESS SECONDS REQUEST (hex)."""

import sys
from typing import Any

import grpc


def main() -> int:
    address, seconds, request = sys.argv[1:]
    options = [
        ("grpc.keepalive_time_ms", int(seconds) * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        # By default it would stop to ping after two pings without data.
        ("grpc.http2.max_pings_without_data", 0),
    ]
    with grpc.insecure_channel(address, options) as channel:
        method: Any = channel.unary_stream("/trunkline.v1.CompletionService/StreamCompletion")
        call = method(bytes.fromhex(request))
        try:
            for _ in call:
                pass
        except grpc.RpcError as error:
            sys.stdout.write(f"{error}\n")
            return 1
    sys.stdout.write("OK\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
