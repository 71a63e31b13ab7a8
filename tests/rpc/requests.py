"""Requests in protobuf's text format, and readers of what was found wrong with them, for the tests of validation."""

from __future__ import annotations

from google.protobuf import text_format

from trunkline.v1 import completion_service_pb2
from trunkline_server.rpc import validation
from trunkline_server.rpc.findings import Findings

Create = completion_service_pb2.CreateCompletionRequest
Stream = completion_service_pb2.StreamCompletionRequest

USER = 'messages { role: ROLE_USER parts { text { text: "hi" } } }'
MODEL = 'model: "acme/x"'
WELL = f"spec {{ {MODEL} {USER} }}"


def create(spec: str = "", rest: str = "") -> Findings:
    """Findings of a request that is right but for what is given."""
    return validation.of_create(text_format.Parse(f"spec {{ {MODEL} {USER} {spec} }} {rest}", Create()))


def conversation(*messages: str, spec: str = "") -> Findings:
    text = " ".join(f"messages {{ {message} }}" for message in messages)
    return validation.of_create(text_format.Parse(f"spec {{ {MODEL} {text} {spec} }}", Create()))


def invalid(findings: Findings) -> dict[str, str]:
    assert not findings.unsupported
    assert len({found.field for found in findings.invalid}) == len(findings.invalid)
    return {found.field: found.description for found in findings.invalid}


def only(findings: Findings) -> tuple[str, str]:
    """The one violation."""
    assert not findings.unsupported
    assert [found.field for found in findings.invalid] == [findings.invalid[0].field]
    return findings.invalid[0].field, findings.invalid[0].description


def is_fine(findings: Findings) -> bool:
    return not findings.invalid and not findings.unsupported


def results(*ids: str) -> str:
    return "role: ROLE_TOOL " + " ".join(f'parts {{ tool_result {{ tool_call_id: "{one}" }} }}' for one in ids)
