"""The words that OpenAI's APIs, and most others after them, have for the contract's enum values."""

from __future__ import annotations

from collections.abc import Mapping

from trunkline.v1 import completion_pb2, embedding_service_pb2, generation_pb2, message_pb2

EFFORTS: Mapping[int, str] = {
    generation_pb2.REASONING_EFFORT_NONE: "none",
    generation_pb2.REASONING_EFFORT_MINIMAL: "minimal",
    generation_pb2.REASONING_EFFORT_LOW: "low",
    generation_pb2.REASONING_EFFORT_MEDIUM: "medium",
    generation_pb2.REASONING_EFFORT_HIGH: "high",
    generation_pb2.REASONING_EFFORT_XHIGH: "xhigh",
    generation_pb2.REASONING_EFFORT_MAX: "max",
}
VERBOSITIES: Mapping[int, str] = {
    generation_pb2.VERBOSITY_LOW: "low",
    generation_pb2.VERBOSITY_MEDIUM: "medium",
    generation_pb2.VERBOSITY_HIGH: "high",
}
TOOL_MODES: Mapping[int, str] = {
    completion_pb2.TOOL_CHOICE_MODE_AUTO: "auto",
    completion_pb2.TOOL_CHOICE_MODE_NONE: "none",
    completion_pb2.TOOL_CHOICE_MODE_REQUIRED: "required",
}
#: What Cohere's models are told that vectors are for, wherever they run. They want to be told: vectors of documents are
#: the ones that all others are compared with.
COHERE_TASKS: Mapping[int, str] = {
    embedding_service_pb2.EMBEDDING_TASK_UNSPECIFIED: "search_document",
    embedding_service_pb2.EMBEDDING_TASK_DOCUMENT: "search_document",
    embedding_service_pb2.EMBEDDING_TASK_QUERY: "search_query",
    embedding_service_pb2.EMBEDDING_TASK_CLASSIFICATION: "classification",
    embedding_service_pb2.EMBEDDING_TASK_CLUSTERING: "clustering",
}
#: How closely to look at a picture. There is nothing between low and high.
DETAILS: Mapping[int, str] = {
    message_pb2.MEDIA_DETAIL_LOW: "low",
    message_pb2.MEDIA_DETAIL_MEDIUM: "auto",
    message_pb2.MEDIA_DETAIL_HIGH: "high",
}
#: `input_audio.format` by media type.
SOUNDS: Mapping[str, str] = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/ogg": "ogg",
    "audio/flac": "flac",
    "audio/mp4": "m4a",
    "audio/m4a": "m4a",
    "audio/aac": "aac",
    "audio/webm": "webm",
    "audio/pcm": "pcm16",
}


def sound_of(mime_type: str) -> str:
    """The word for the encoding of a sound."""
    plain = mime_type.partition(";")[0].strip().lower()
    return SOUNDS.get(plain) or plain.removeprefix("audio/")
