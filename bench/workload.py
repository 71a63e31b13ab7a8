"""What is measured: the calls, and how the upstream answers each. One place, so that all gateways get the same."""

from __future__ import annotations

import json
from dataclasses import dataclass

from trunkline.v1 import completion_pb2, completion_service_pb2, generation_pb2, message_pb2

#: Calls that wait for their answer at the same time.
CALLERS = 32
#: gRPC connections that they share.
CONNECTIONS = 4

#: Seconds between two events of a paced stream, and how many events it has.
PACE, PACED_EVENTS = 0.002, 300
#: Paced streams side by side: 12,000 events a second.
PACED_STREAMS = 24

#: Events in one write of the upstream's, writes in a stream, and seconds between two writes: each is a read of its own.
BURST, BURSTS, BURST_PAUSE = 16, 40, 0.010
BURST_EVENTS = BURST * BURSTS

#: Words of a stream that is silent between them, and for how many seconds.
IDLE_EVENTS, IDLE_PAUSE = 3, 10.0

#: Deltas of a stream that is then held open.
HELD_EVENTS = 10
HELD_STREAMS = 2000

WORD = " word"
ANSWER = "Hello there, this is an answer of some words. " * 8

CREATE = "/trunkline.v1.CompletionService/CreateCompletion"
STREAM = "/trunkline.v1.CompletionService/StreamCompletion"

SYSTEM = "You are a helpful assistant. Answer briefly, and say so when you do not know."
#: With it a request has 1 KB.
QUESTION = "Which of these words is not like the others? " + "word " * 170


@dataclass(frozen=True)
class Call:
    """One kind of call: what the upstream does when it is asked for this model."""

    #: Model name at the upstream.
    model: str
    #: Events with content in each answer; 0: the answer is not streamed.
    events: int
    #: Seconds before each write.
    pause: float = 0.0
    #: Events in each write.
    together: int = 1
    #: Stays open after the last event.
    held: bool = False
    #: Has a bench of its own.
    apart: bool = False
    #: How often the question is put, and the answer given if it is not streamed.
    asks: int = 1
    says: int = 1

    @property
    def text(self) -> str:
        """What the caller must get."""
        return "".join(map(word, range(self.events))) if self.events else ANSWER * self.says

    @property
    def question(self) -> str:
        return QUESTION * self.asks


UNARY = Call("answer", 0)
#: 2 KB there and 2 KB back.
LARGER = Call("larger", 0, asks=2, says=5)
PACED = Call("paced", PACED_EVENTS, PACE)
BURSTY = Call("burst", BURST_EVENTS, BURST_PAUSE, BURST)
HELD = Call("held", HELD_EVENTS, PACE, held=True)

IDLE = Call("idle", IDLE_EVENTS, IDLE_PAUSE, apart=True)

CALLS = {call.model: call for call in (UNARY, LARGER, PACED, BURSTY, HELD, IDLE)}


def word(number: int) -> str:
    """What an event adds to the answer. Not always the same: LiteLLM ends a stream that repeats itself."""
    return f"{WORD}{number % 10}"


def grpc_request(call: Call, provider: str) -> bytes:
    """The call as trunkline takes it."""
    spec = completion_pb2.CompletionSpec(
        model=f"{provider}/{call.model}",
        messages=[_message(message_pb2.ROLE_SYSTEM, SYSTEM), _message(message_pb2.ROLE_USER, call.question)],
        params=generation_pb2.GenerationParams(temperature=0.5, max_output_tokens=1000),
    )
    if call.events:
        return completion_service_pb2.StreamCompletionRequest(spec=spec).SerializeToString()
    return completion_service_pb2.CreateCompletionRequest(spec=spec).SerializeToString()


def http_request(call: Call) -> bytes:
    """The same call as OpenAI takes it."""
    body: dict[str, object] = {
        "model": call.model,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": call.question}],
        "temperature": 0.5,
        "max_completion_tokens": 1000,
    }
    if call.events:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body).encode()


def _message(role: message_pb2.Role.ValueType, text: str) -> message_pb2.Message:
    return message_pb2.Message(role=role, parts=[message_pb2.ContentPart(text=message_pb2.Text(text=text))])
