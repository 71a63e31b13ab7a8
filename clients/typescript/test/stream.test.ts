import assert from "node:assert/strict";
import { test } from "node:test";
import { create, equals } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { Code, Collector, StreamIncomplete, StreamRuleBroken, Unavailable, user } from "../src/index.js";
import {
  CompletionSchema,
  FinishReason,
  Role,
  StreamCompletionResponseSchema,
  type StreamCompletionRequest,
  type StreamCompletionResponse,
} from "../src/v1.js";
import { type EventInit, Refusal, duration, failure, numbered, toArray, withGateway } from "./gateway.js";

const prompt = { model: "fake/echo", messages: [user("One two three.")] };
const forever = () => new Promise<never>(() => undefined);

const started: EventInit = { case: "started", value: { completionId: "cmpl_1" } };
const attempt: EventInit = { case: "attemptStarted", value: { attempt: 1, provider: "fake", model: "fake/echo" } };
const finished: EventInit = { case: "finished", value: {} };
const heartbeat: EventInit = { case: "heartbeat", value: {} };
const part = (partIndex: number, kind: object, choiceIndex = 0): EventInit => ({
  case: "partStarted",
  value: { choiceIndex, partIndex, part: kind },
});
const textPart = (partIndex: number, choiceIndex = 0) =>
  part(partIndex, { kind: { case: "text", value: {} } }, choiceIndex);
const delta = (partIndex: number, value: object, choiceIndex = 0): EventInit => ({
  case: "partDelta",
  value: { choiceIndex, partIndex, delta: value as never },
});
const textDelta = (partIndex: number, value: string, choiceIndex = 0) =>
  delta(partIndex, { case: "text", value }, choiceIndex);
const partEnd = (partIndex: number, choiceIndex = 0, more: object = {}): EventInit => ({
  case: "partFinished",
  value: { choiceIndex, partIndex, ...more },
});
const choiceEnd = (choiceIndex = 0, more: object = {}): EventInit => ({
  case: "choiceFinished",
  value: { choiceIndex, finishReason: FinishReason.STOP, ...more },
});

const whole = [
  started,
  attempt,
  textPart(0),
  textDelta(0, "One"),
  textDelta(0, " two"),
  heartbeat,
  textDelta(0, " three."),
  partEnd(0),
  choiceEnd(),
  finished,
];

async function collect(events: EventInit[]): Promise<Collector> {
  const collector = new Collector();
  for await (const event of numbered(events)) {
    collector.add(event);
  }
  return collector;
}

test("a collected stream equals the unary completion, whatever is in it", async () => {
  const tokens = [{ token: "Hi", logprob: -0.1 }];
  const citation = { title: "Atlas", source: { case: "uri" as const, value: "https://example.org" } };
  const usage = { inputTokens: 3, outputTokens: 9, costNanoUsd: 5n };
  const createTime = { seconds: 1_700_000_000n, nanos: 5 };
  const collector = await collect([
    { case: "started", value: { completionId: "cmpl_1", createTime } },
    {
      case: "attemptStarted",
      value: { attempt: 2, provider: "fake", model: "fake/script", providerResponseId: "resp_1" },
    },
    part(0, { kind: { case: "reasoning", value: { isSummary: true } }, itemId: "rs_1", originProvider: "fake" }),
    textDelta(0, "Hm"),
    textDelta(0, "m."),
    delta(0, { case: "signature", value: "sig" }),
    delta(0, { case: "signature", value: "nature" }),
    delta(0, { case: "encrypted", value: "c2Vj" }),
    partEnd(0),
    part(1, { kind: { case: "text", value: { text: "Dear" } } }),
    textDelta(1, " you"),
    delta(1, { case: "citation", value: citation }),
    part(2, { kind: { case: "toolCall", value: { id: "call_1", name: "get_weather" } } }),
    textDelta(2, '{"ci'),
    {
      case: "partDelta",
      value: { choiceIndex: 0, partIndex: 1, delta: { case: "text", value: "!" }, logprobs: tokens },
    },
    textDelta(2, 'ty":"Pa'),
    { case: "usageUpdated", value: { usage: { outputTokens: 1 } } },
    partEnd(1),
    partEnd(2, 0, { completedArgumentsJson: '{"city":"Pa"}', reasoning: "because" }),
    part(3, { kind: { case: "audio", value: { mimeType: "audio/wav" } } }),
    delta(3, { case: "data", value: new Uint8Array([1, 2]) }),
    delta(3, { case: "data", value: new Uint8Array([3]) }),
    delta(3, { case: "transcript", value: "la " }),
    delta(3, { case: "transcript", value: "la" }),
    partEnd(3),
    part(4, { kind: { case: "opaque", value: { type: "web_search_tool_result", json: "{}" } } }),
    partEnd(4),
    textPart(0, 1),
    textDelta(0, "Other", 1),
    partEnd(0, 1),
    choiceEnd(1, { finishReason: FinishReason.LENGTH, rawFinishReason: "max_tokens" }),
    choiceEnd(0, { rawFinishReason: "stop_sequence", stopSequence: "END" }),
    {
      case: "finished",
      value: {
        usage,
        timing: { total: duration(1500) },
        warnings: [{ reason: "PARAMETER_DROPPED", field: "params.top_k" }],
        attempts: 2,
        providerRequestId: "req_1",
        serviceTier: "flex",
        systemFingerprint: "fp_1",
        rateLimits: [{ metric: "requests", remaining: 9n }],
      },
    },
  ]);

  const unary = create(CompletionSchema, {
    id: "cmpl_1",
    createTime,
    provider: "fake",
    model: "fake/script",
    providerResponseId: "resp_1",
    providerRequestId: "req_1",
    choices: [
      {
        index: 0,
        message: {
          role: Role.ASSISTANT,
          parts: [
            {
              kind: { case: "reasoning", value: { text: "Hmm.", isSummary: true, encrypted: "c2Vj" } },
              signature: "signature",
              itemId: "rs_1",
              originProvider: "fake",
            },
            { kind: { case: "text", value: { text: "Dear you!", citations: [citation] } } },
            {
              kind: {
                case: "toolCall",
                value: {
                  id: "call_1",
                  name: "get_weather",
                  argumentsJson: '{"city":"Pa',
                  completedArgumentsJson: '{"city":"Pa"}',
                  reasoning: "because",
                },
              },
            },
            {
              kind: {
                case: "audio",
                value: {
                  mimeType: "audio/wav",
                  source: { case: "data", value: new Uint8Array([1, 2, 3]) },
                  transcript: "la la",
                },
              },
            },
            { kind: { case: "opaque", value: { type: "web_search_tool_result", json: "{}" } } },
          ],
        },
        finishReason: FinishReason.STOP,
        rawFinishReason: "stop_sequence",
        stopSequence: "END",
        logprobs: tokens,
      },
      {
        index: 1,
        message: { role: Role.ASSISTANT, parts: [{ kind: { case: "text", value: { text: "Other" } } }] },
        finishReason: FinishReason.LENGTH,
        rawFinishReason: "max_tokens",
      },
    ],
    usage,
    timing: { total: duration(1500) },
    warnings: [{ reason: "PARAMETER_DROPPED", field: "params.top_k" }],
    attempts: 2,
    serviceTier: "flex",
    systemFingerprint: "fp_1",
    rateLimits: [{ metric: "requests", remaining: 9n }],
  });
  assert.deepEqual(collector.completion(), unary);
  assert.ok(equals(CompletionSchema, collector.completion(), unary));
});

test("a restart forgets what came before it", async () => {
  const collector = await collect([
    started,
    attempt,
    textPart(0),
    textDelta(0, "Wrong"),
    { case: "restarted", value: { attempt: 2, reason: "LLM_CONNECTION" } },
    { case: "attemptStarted", value: { attempt: 2, provider: "other", model: "m" } },
    textPart(0),
    textDelta(0, "Right"),
    partEnd(0),
    choiceEnd(),
    finished,
  ]);

  const completion = collector.completion();
  assert.equal(completion.provider, "other");
  assert.deepEqual(completion.choices[0]?.message?.parts.length, 1);
});

test("an event and a part of a kind that this version does not know are passed over", async () => {
  const unknown = create(StreamCompletionResponseSchema, { sequenceNumber: 2 });
  const collector = new Collector();
  const events = [...(await toArray(numbered([started, heartbeat, attempt, part(0, {}), textDelta(0, "?")])))];
  events[1] = unknown;
  for (const event of events) {
    collector.add(event);
  }

  assert.equal(collector.snapshot().choices[0]?.message?.parts[0]?.kind.case, undefined);
});

const VIOLATIONS: Record<string, [EventInit[], RegExp]> = {
  "an event before started": [[heartbeat], /started must come first/],
  "a second started": [[started, started], /started must come first, and once/],
  "a second attempt without a restart": [[started, attempt, attempt], /another attempt/],
  "a part before the attempt": [[started, textPart(0)], /before attempt_started/],
  "a part out of turn": [[started, attempt, textPart(1)], /starts part 1 after 0 parts/],
  "a part that says nothing": [
    [started, attempt, { case: "partStarted", value: { choiceIndex: 0, partIndex: 0 } }],
    /without saying which/,
  ],
  "a delta of a part that never started": [[started, attempt, textDelta(0, "x")], /part 0 of choice 0/],
  "a delta of a finished part": [
    [started, attempt, textPart(0), partEnd(0), textDelta(0, "x")],
    /part 0 of choice 0, which is not open/,
  ],
  "a part finished twice": [[started, attempt, textPart(0), partEnd(0), partEnd(0)], /not open/],
  "a delta that does not fit its part": [
    [started, attempt, textPart(0), delta(0, { case: "data", value: new Uint8Array(1) })],
    /appends data to a part of another kind/,
  ],
  "a choice finished with a part open": [[started, attempt, textPart(0), choiceEnd()], /part 0 open/],
  "a choice finished twice": [[started, attempt, choiceEnd(), choiceEnd()], /after choice 0 finished/],
  "a part of a finished choice": [[started, attempt, choiceEnd(), textPart(0)], /after choice 0 finished/],
  "a negative choice": [[started, attempt, choiceEnd(-1)], /names choice -1/],
  "finished with a choice open": [[started, attempt, textPart(0), partEnd(0), finished], /choice 0 open/],
  "an event after finished": [[started, finished, heartbeat], /after finished/],
};
for (const [what, [events, message]] of Object.entries(VIOLATIONS)) {
  test(`${what} is a violation`, async () => {
    const error = await failure(collect(events));

    assert.ok(error instanceof StreamRuleBroken);
    assert.match(error.message, message);
  });
}

for (const [what, number] of Object.entries({ gap: 3, repetition: 1 })) {
  test(`a ${what} in the numbers is a violation`, async () => {
    const [first] = await toArray(numbered([started]));
    const events = [first, create(StreamCompletionResponseSchema, { sequenceNumber: number, event: heartbeat })];
    async function* stream() {
      yield* await Promise.resolve(events as StreamCompletionResponse[]);
      await forever();
    }
    await withGateway({ stream }, async (gateway) => {
      const error = await failure(gateway.client().stream(prompt).collect());

      assert.ok(error instanceof StreamRuleBroken);
      assert.equal(error.requestId, "cmpl_1");
      await gateway.calls[0]?.cancelled;
    });
  });
}

for (let length = 0; length < whole.length; length++) {
  test(`a stream that ends with OK after ${length} of ${whole.length} events is incomplete`, async () => {
    await withGateway({ stream: () => numbered(whole.slice(0, length)) }, async (gateway) => {
      const error = await failure(gateway.client().stream(prompt).collect());

      assert.ok(error instanceof StreamIncomplete);
      assert.equal(error.code, Code.Unavailable);
      assert.equal(error.completion?.id, length === 0 ? "" : "cmpl_1");
    });
  });
}

test("a stream reads as events", async () => {
  await withGateway({ stream: () => numbered(whole) }, async (gateway) => {
    const cases = [];
    for await (const { event } of gateway.client().stream(prompt)) {
      cases.push(event.case);
    }

    assert.deepEqual(
      cases,
      whole.map((event) => event?.case),
    );
  });
});

test("a stream reads as text, and then as the completion", async () => {
  const mixed = [
    started,
    attempt,
    part(0, { kind: { case: "reasoning", value: { text: "Think" } } }),
    textDelta(0, "ing"),
    partEnd(0),
    part(1, { kind: { case: "text", value: { text: "One" } } }),
    textDelta(1, " two"),
    textPart(0, 1),
    textDelta(0, "other choice", 1),
    textDelta(1, " three."),
    partEnd(1),
    partEnd(0, 1),
    choiceEnd(0),
    choiceEnd(1),
    finished,
  ];
  await withGateway({ stream: () => numbered(mixed) }, async (gateway) => {
    const stream = gateway.client().stream(prompt);

    assert.deepEqual(await toArray(stream.text()), ["One", " two", " three."]);
    assert.equal((await stream.collect()).choices[0]?.finishReason, FinishReason.STOP);
    assert.equal(gateway.calls.length, 1);
  });
});

test("text that begins again is an error, not a muddle", async () => {
  const restarted: EventInit = { case: "restarted", value: { attempt: 2 } };
  const again = [...whole.slice(0, 5), restarted, ...whole.slice(1)];
  await withGateway({ stream: () => numbered(again) }, async (gateway) => {
    assert.match(String(await failure(toArray(gateway.client().stream(prompt).text()))), /began again/);
  });
});

test("text that begins again before any was given out is text", async () => {
  const restarted: EventInit = { case: "restarted", value: { attempt: 2 } };
  const again = [...whole.slice(0, 2), restarted, ...whole.slice(1)];
  await withGateway({ stream: () => numbered(again) }, async (gateway) => {
    assert.deepEqual(await toArray(gateway.client().stream(prompt).text()), ["One", " two", " three."]);
  });
});

test("leaving the text early cancels the call", async () => {
  async function* stream() {
    yield* numbered(whole.slice(0, 4));
    await forever();
  }
  await withGateway({ stream }, async (gateway) => {
    const stream = gateway.client().stream(prompt);
    for await (const piece of stream.text()) {
      assert.equal(piece, "One");
      break;
    }

    await gateway.calls[0]?.cancelled;
    assert.ok((await failure(stream.collect())) instanceof StreamIncomplete);
  });
});

test("a stream is read once", async () => {
  await withGateway({ stream: () => numbered(whole) }, async (gateway) => {
    const stream = gateway.client().stream(prompt);
    await stream.collect();

    assert.match(String(await failure(toArray(stream))), /read once/);
    assert.equal(gateway.calls.length, 1);
  });
});

test("a stream that nobody reads makes no call", async () => {
  await withGateway({ stream: () => numbered(whole) }, async (gateway) => {
    const client = gateway.client();
    client.stream(prompt);
    await client.stream(prompt).collect();

    assert.equal(gateway.calls.length, 1);
  });
});

test("an error in the middle leaves what came before it", async () => {
  async function* stream() {
    yield* numbered(whole.slice(0, 5));
    throw new Refusal(grpc.status.UNAVAILABLE, "the provider broke off", {
      reason: "LLM_CONNECTION",
      detail: { lastSequenceNumber: 5 },
    });
  }
  await withGateway({ stream }, async (gateway) => {
    const stream = gateway.client().stream(prompt);
    const error = await failure(stream.collect());

    assert.ok(error instanceof Unavailable);
    assert.equal(error.detail?.lastSequenceNumber, 5);
    assert.deepEqual(error.completion, stream.snapshot());
    assert.deepEqual(error.completion.choices[0]?.message?.parts[0]?.kind.value, {
      $typeName: "trunkline.v1.Text",
      text: "One two",
      citations: [],
    });
  });
});

test("stream options reach the gateway", async () => {
  const asked: unknown[] = [];
  const stream = (request: StreamCompletionRequest) => {
    asked.push(request.streamOptions?.includeCompletion);
    return numbered(whole);
  };
  await withGateway({ stream }, async (gateway) => {
    await gateway
      .client()
      .stream(prompt, { streamOptions: { includeCompletion: true } })
      .collect();

    assert.deepEqual(asked, [true]);
  });
});
