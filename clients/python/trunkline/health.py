"""The two messages of grpc.health.v1, by hand: its package is the server's dependency and not ours."""

CHECK = "/grpc.health.v1.Health/Check"
# HealthCheckResponse.ServingStatus, by number.
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


def encode(service: str) -> bytes:
    """HealthCheckRequest{string service = 1}."""
    name = service.encode()
    return b"\x0a" + _varint(len(name)) + name if name else b""


def decode(response: bytes) -> str:
    """The name of HealthCheckResponse{ServingStatus status = 1}; a zero is not on the wire."""
    number = response[1] if len(response) >= 2 and response[0] == 0x08 else 0
    return STATUSES[number] if number < len(STATUSES) else STATUSES[0]


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
