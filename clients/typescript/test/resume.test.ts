import assert from "node:assert/strict";
import { test } from "node:test";
import * as grpc from "@grpc/grpc-js";
import { FinishReason, TrunklineError, Unavailable, textOf, user } from "../src/index.js";
import type { StreamCompletionRequest } from "../src/v1.js";
import { type EventInit, Refusal, type Script, failure, numbered, withGateway } from "./gateway.js";

const prompt = { model: "fake/echo", messages: [user("Say hello.")] };
const settings = { requestId: "one", streamOptions: { resumable: true } };
const broken = new Refusal(grpc.status.UNAVAILABLE, "the connection broke");

const events: EventInit[] = [
  { case: "started", value: { completionId: "cmpl_1", resumable: true } },
  { case: "attemptStarted", value: { attempt: 1, provider: "fake", model: "echo" } },
  { case: "partStarted", value: { part: { kind: { case: "text", value: { text: "" } } } } },
  { case: "partDelta", value: { delta: { case: "text", value: "Hello" } } },
  { case: "partDelta", value: { delta: { case: "text", value: " there." } } },
  { case: "partFinished", value: {} },
  { case: "choiceFinished", value: { finishReason: FinishReason.STOP } },
  { case: "finished", value: { attempts: 1 } },
];

/** Says what follows the point that is asked for, up to where each turn breaks off. */
function breakingAt(breaks: number[], error: Error = broken) {
  const asked: StreamCompletionRequest[] = [];
  const cancelled: string[] = [];
  const script: Script = {
    async *stream(request) {
      const upTo = breaks[asked.length];
      asked.push(request);
      const after = request.start.case === "resume" ? request.start.value.afterSequenceNumber : 0;
      for await (const event of numbered(events)) {
        if (event.sequenceNumber > after && event.sequenceNumber <= (upTo ?? events.length)) {
          yield event;
        }
      }
      if (upTo !== undefined) {
        throw error;
      }
    },
    cancel({ completionId }) {
      cancelled.push(completionId);
      return {};
    },
  };
  return { script, asked, cancelled };
}

for (const breaks of [[1], [4], [7], [2, 2, 5]]) {
  test(`a resumable stream that breaks after ${breaks.join(", ")} goes on`, async () => {
    const { script, asked, cancelled } = breakingAt(breaks);
    await withGateway(script, async (gateway) => {
      const client = gateway.client();
      const completion = await client.stream(prompt, settings).collect();

      assert.equal(textOf(completion), "Hello there.");
    });
    const points = asked.slice(1).map(({ start, requestId, streamOptions }) => {
      assert.equal(requestId, "one");
      assert.equal(streamOptions, undefined);
      return start.case === "resume" ? [start.value.completionId, start.value.afterSequenceNumber] : [];
    });
    assert.deepEqual(
      points,
      breaks.map((at) => ["cmpl_1", at]),
    );
    assert.deepEqual(cancelled, []);
  });
}

test("a stream that is resumed in vain is given up", async () => {
  const { script, asked } = breakingAt(
    Array<number>(50).fill(3),
    new Refusal(grpc.status.UNAVAILABLE, "later", { reason: "SHUTTING_DOWN", pushback: "-1" }),
  );
  await withGateway(script, async (gateway) => {
    const client = gateway.client();
    assert.ok((await failure(client.stream(prompt, settings).collect())) instanceof Unavailable);
  });
  assert.equal(asked.length, 6);
});

for (const reason of ["LLM_CONNECTION", "COMPLETION_LOST"]) {
  test(`a completion that ended with ${reason} is not resumed`, async () => {
    const { script, asked, cancelled } = breakingAt([3], new Refusal(grpc.status.UNAVAILABLE, "over", { reason }));
    await withGateway(script, async (gateway) => {
      const client = gateway.client();
      const error = await failure(client.stream(prompt, settings).collect());

      assert.ok(error instanceof TrunklineError);
      assert.equal(error.reason, reason);
    });
    assert.equal(asked.length, 1);
    assert.deepEqual(cancelled, []);
  });
}

test("leaving a resumable stream stops its completion", async () => {
  const { script, cancelled } = breakingAt([]);
  await withGateway(script, async (gateway) => {
    const client = gateway.client();
    for await (const { event } of client.stream(prompt, settings)) {
      if (event.case === "partDelta") {
        break;
      }
    }
  });
  assert.deepEqual(cancelled, ["cmpl_1"]);
});

test("a signal that ends the reading stops the completion", async () => {
  const { script, cancelled } = breakingAt([]);
  await withGateway(script, async (gateway) => {
    const client = gateway.client();
    const leaving = new AbortController();
    const reading = async () => {
      for await (const { event } of client.stream(prompt, { ...settings, signal: leaving.signal })) {
        if (event.case === "partDelta") {
          leaving.abort();
        }
      }
    };
    await failure(reading());
  });
  assert.deepEqual(cancelled, ["cmpl_1"]);
});

test("a stream of another program is read from its start", async () => {
  const { script, asked } = breakingAt([]);
  await withGateway(script, async (gateway) => {
    const client = gateway.client();
    assert.equal(textOf(await client.resume("cmpl_1").collect()), "Hello there.");
  });
  assert.equal(asked[0]?.start.case, "resume");
});
