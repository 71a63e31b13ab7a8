"""Bytes of pictures, sounds and files as text: base64 and data: addresses."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from trunkline.v1 import message_pb2
from trunkline_server.errors import LLMInvalidResponseError


def address_of(media: message_pb2.Media) -> str | None:
    """The address of the bytes, or the bytes as one; None for a handle."""
    source = media.WhichOneof("source")
    if source == "data":
        return f"data:{media.mime_type};base64,{base64_of(media.data)}"
    return media.uri if source == "uri" else None


def text_of(media: message_pb2.Media) -> str:
    """A document that is text, with its name above."""
    title = f"{media.filename}:\n" if media.filename else ""
    return title + media.data.decode("utf-8", "replace")


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def bytes_of(text: Any) -> bytes:
    """What base64 says; nothing for what is no text. Raises LLMInvalidResponseError."""
    if not isinstance(text, str) or not text:
        return b""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise LLMInvalidResponseError("the provider sent media that is not base64") from None
