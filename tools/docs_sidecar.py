"""The JSON schema of the lines that a sidecar takes, from the contract and from `trunkline_server.traces.unix`."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from tools.docs_json import written

from trunkline.v1alpha import trace_pb2
from trunkline_server.traces.unix.lines import PROTOCOL, VERSION

_NUMBER = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}

#: JSON of a protobuf scalar.
_SCALARS: dict[int, dict[str, Any]] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_DOUBLE: _NUMBER,
    FieldDescriptor.TYPE_FLOAT: _NUMBER,
    FieldDescriptor.TYPE_INT32: {"type": "integer"},
    FieldDescriptor.TYPE_INT64: {"type": "string", "pattern": "^-?[0-9]+$"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "minimum": 0},
    FieldDescriptor.TYPE_UINT64: {"type": "string", "pattern": "^[0-9]+$"},
}

#: JSON of protobuf's own messages.
_KNOWN: dict[str, dict[str, Any]] = {
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?s$"},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
}


def schema() -> str:
    """The file."""
    defs: dict[str, Any] = {}
    trace = _message(trace_pb2.Trace.DESCRIPTOR, defs)
    texts = {"type": "array", "items": {"type": "string"}}
    defs["hello"] = {
        "description": "The first line of a connection.",
        "type": "object",
        "properties": {
            "protocol": {"const": PROTOCOL},
            "version": {"type": "integer"},
            "server": {"description": "Who writes, for logs.", "type": "string"},
            "ack": {"description": "The gateway waits for the ack of each record.", "type": "boolean"},
        },
        "required": ["protocol", "version", "server", "ack"],
    }
    defs["record"] = {
        "description": "One call. The same id may come again: keep it once.",
        "type": "object",
        "properties": {
            "version": {"const": VERSION},
            "id": {"description": "Id of the call, as Completion.id.", "type": "string"},
            "trace": trace,
            "truncated": {"description": "What of the trace was cut to the bound of a line.", **texts},
        },
        "required": ["version", "id", "trace"],
    }
    defs["said"] = {
        "description": "A line of the sidecar's.",
        "type": "object",
        "properties": {
            "accept": {"description": "It takes this version.", "type": "integer"},
            "refuse": {"description": "It takes none; why, for the gateway's log.", "type": "string"},
            "versions": {
                "description": "Beside refuse: those that it takes.",
                "type": "array",
                "items": {"type": "integer"},
            },
            "ack": {"description": "Ids of records that are safe with it.", "anyOf": [{"type": "string"}, texts]},
        },
    }
    made = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{PROTOCOL}, version {VERSION}: the lines that a gateway writes",
        "anyOf": [{"$ref": "#/$defs/hello"}, {"$ref": "#/$defs/record"}],
        "$defs": dict(sorted(defs.items())),
    }
    return written(made)


def _message(descriptor: Descriptor, defs: dict[str, Any]) -> dict[str, Any]:
    known = _KNOWN.get(descriptor.full_name)
    if known is not None:
        return known
    name = descriptor.full_name
    if name not in defs:
        defs[name] = {}  # before its fields: messages hold themselves
        properties = {field.json_name: _field(field, defs) for field in descriptor.fields}
        defs[name] = {"type": "object", "properties": properties}
    return {"$ref": f"#/$defs/{name}"}


def _field(field: FieldDescriptor, defs: dict[str, Any]) -> dict[str, Any]:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _value(entry.fields_by_name["value"], defs)}
    value = _value(field, defs)
    return {"type": "array", "items": value} if field.is_repeated else value


def _value(field: FieldDescriptor, defs: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None:
        return _message(field.message_type, defs)
    if field.enum_type is not None:
        return _enum(field.enum_type, defs)
    return _SCALARS[field.type]


def _enum(descriptor: EnumDescriptor, defs: dict[str, Any]) -> dict[str, Any]:
    # New values may come, as names or as numbers: they must break no reader.
    defs[descriptor.full_name] = {
        "examples": [value.name for value in descriptor.values],
        "type": ["string", "integer"],
    }
    return {"$ref": f"#/$defs/{descriptor.full_name}"}
