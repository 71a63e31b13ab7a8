import assert from "node:assert/strict";
import { once } from "node:events";
import * as http2 from "node:http2";
import { test } from "node:test";
import * as grpc from "@grpc/grpc-js";
import { Client, Overloaded, RateLimited, TimedOut, TrunklineError, Unavailable, user } from "../src/index.js";
import { RetryThrottle } from "../src/retry.js";
import { Refusal, addressOf, failure, inTurn, numbered, withGateway } from "./gateway.js";

const prompt = { model: "fake/echo", messages: [user("Say hello.")] };
const answer = { completion: { id: "cmpl_1" } };
const { INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE } = grpc.status;

const unavailable = (pushback?: string) =>
  new Refusal(UNAVAILABLE, "try again", { reason: "LLM_OVERLOADED", ...(pushback !== undefined && { pushback }) });
const rateLimited = (retryAfterMs: number, pushback?: string) =>
  new Refusal(RESOURCE_EXHAUSTED, "slow down", {
    reason: "LLM_RATE_LIMITED",
    retryAfterMs,
    ...(pushback !== undefined && { pushback }),
  });

async function timed<T>(call: Promise<T>): Promise<{ value: T; ms: number }> {
  const start = performance.now();
  return { value: await call, ms: performance.now() - start };
}

test("UNAVAILABLE is tried three times in all, with a growing wait", async () => {
  await withGateway({ create: inTurn(unavailable()) }, async (gateway) => {
    const { value, ms } = await timed(failure(gateway.client().complete(prompt)));

    assert.ok(value instanceof Overloaded);
    assert.equal(gateway.calls.length, 3);
    // 200 ms and 400 ms, each ± 20 %.
    assert.ok(ms >= 480 && ms < 1500, `${ms} ms`);
  });
});

test("a later attempt says how many there were, and carries the same request id", async () => {
  const ids: string[] = [];
  const next = inTurn(unavailable("1"), unavailable("1"), answer);
  const create = ({ requestId }: { requestId: string }) => {
    ids.push(requestId);
    return next();
  };
  await withGateway({ create }, async (gateway) => {
    assert.equal((await gateway.client().complete(prompt)).id, "cmpl_1");

    const counts = gateway.calls.map(({ metadata }) => metadata.get("grpc-previous-rpc-attempts"));
    assert.deepEqual(counts, [[], ["1"], ["2"]]);
    assert.equal(new Set(ids).size, 1);
  });
});

test("a pushback sets the wait", async () => {
  await withGateway({ create: inTurn(unavailable("300"), answer) }, async (gateway) => {
    const { ms } = await timed(gateway.client().complete(prompt));

    assert.ok(ms >= 295 && ms < 1000, `${ms} ms`);
  });
});

for (const pushback of ["-1", "soon"]) {
  test(`a pushback of ${pushback} forbids another attempt`, async () => {
    await withGateway({ create: inTurn(unavailable(pushback)) }, async (gateway) => {
      assert.ok((await failure(gateway.client().complete(prompt))) instanceof Unavailable);
      assert.equal(gateway.calls.length, 1);
    });
  });
}

test("other codes are not retried, whatever the details say", async () => {
  const internal = new Refusal(INTERNAL, "empty", { reason: "LLM_EMPTY_RESPONSE", detail: { retryable: true } });
  await withGateway({ create: inTurn(internal) }, async (gateway) => {
    const error = await failure(gateway.client().complete(prompt));

    assert.ok(error instanceof TrunklineError && error.retryable);
    assert.equal(gateway.calls.length, 1);
  });
});

test("a call that the server began to answer is not sent again", async () => {
  let calls = 0;
  // grpc-js merges headers into a status that follows at once; here they go first.
  const server = http2.createServer();
  server.on("stream", (stream) => {
    calls++;
    stream.respond({ "content-type": "application/grpc" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => {
      stream.sendTrailers({ "grpc-status": "14", "grpc-message": "too late" });
    });
    stream.end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = new Client({ address: addressOf(server) });
  const error = await failure(client.complete(prompt));

  assert.ok(error instanceof Unavailable);
  assert.equal(error.message, "too late");
  assert.equal(calls, 1);
  client.close();
  server.close();
});

test("retries can be turned off", async () => {
  await withGateway({ create: inTurn(unavailable("1")) }, async (gateway) => {
    await failure(gateway.client({ maxAttempts: 1 }).complete(prompt));

    assert.equal(gateway.calls.length, 1);
  });
});

test("a stream is retried before its first event", async () => {
  const turn = inTurn(unavailable("1"), unavailable("1"), {});
  async function* stream() {
    turn();
    yield* numbered([
      { case: "started", value: { completionId: "cmpl_1" } },
      { case: "finished", value: {} },
    ]);
  }
  await withGateway({ stream }, async (gateway) => {
    assert.equal((await gateway.client().stream(prompt).collect()).id, "cmpl_1");
    assert.equal(gateway.calls.length, 3);
  });
});

test("a stream is not retried after its first event", async () => {
  async function* stream() {
    yield* numbered([{ case: "started", value: { completionId: "cmpl_1" } }]);
    throw unavailable("1");
  }
  await withGateway({ stream }, async (gateway) => {
    const stream = gateway.client().stream(prompt);

    assert.ok((await failure(stream.collect())) instanceof Overloaded);
    assert.equal(gateway.calls.length, 1);
    assert.equal(stream.snapshot().id, "cmpl_1");
  });
});

test("a wait that would outlast the deadline is not begun", async () => {
  await withGateway({ create: inTurn(unavailable("5000")) }, async (gateway) => {
    const { value, ms } = await timed(failure(gateway.client().complete(prompt, { timeoutMs: 1000 })));

    assert.ok(value instanceof Overloaded);
    assert.ok(ms < 900, `${ms} ms`);
  });
});

test("the deadline covers all attempts", async () => {
  const turn = inTurn(unavailable("150"), {});
  const create = () => {
    turn();
    return new Promise<never>(() => undefined);
  };
  await withGateway({ create }, async (gateway) => {
    const { value, ms } = await timed(failure(gateway.client().complete(prompt, { timeoutMs: 300 })));

    assert.ok(value instanceof TimedOut);
    assert.ok(ms < 800, `${ms} ms`);
    assert.ok((gateway.calls[1]?.remainingMs ?? Infinity) <= 150);
  });
});

test("the caller can leave while a retry waits", async () => {
  await withGateway({ create: inTurn(unavailable("20000")) }, async (gateway) => {
    const { ms } = await timed(failure(gateway.client().complete(prompt, { signal: AbortSignal.timeout(50) })));

    assert.ok(ms < 1000, `${ms} ms`);
  });
});

test("a rate limit is not retried by default", async () => {
  await withGateway({ create: inTurn(rateLimited(10), answer) }, async (gateway) => {
    const error = await failure(gateway.client().complete(prompt));

    assert.ok(error instanceof RateLimited);
    assert.equal(error.retryAfterMs, 10);
  });
});

test("a rate limit is retried after its delay where that was asked for", async () => {
  await withGateway({ create: inTurn(rateLimited(120), answer) }, async (gateway) => {
    const { ms } = await timed(gateway.client({ retryRateLimits: true }).complete(prompt));

    assert.ok(ms >= 118, `${ms} ms`);
  });
});

const LIMITS_THAT_END_THE_CALL = {
  "forbids it": rateLimited(1, "-1"),
  "wants a wait beyond the deadline": rateLimited(60_000),
  "names no delay": new Refusal(RESOURCE_EXHAUSTED, "slow down", { reason: "LLM_RATE_LIMITED" }),
};
for (const [what, limit] of Object.entries(LIMITS_THAT_END_THE_CALL)) {
  test(`a rate limit is not retried when the server ${what}`, async () => {
    await withGateway({ create: inTurn(limit) }, async (gateway) => {
      const client = gateway.client({ retryRateLimits: true });

      assert.ok((await failure(client.complete(prompt, { timeoutMs: 2_000 }))) instanceof RateLimited);
      assert.equal(gateway.calls.length, 1);
    });
  });
}

test("retries stop while most calls fail and come back with success", async () => {
  const throttle = new RetryThrottle();
  for (let call = 0; call < 50; call++) {
    assert.equal(throttle.allows, true);
    throttle.failed();
  }
  assert.equal(throttle.allows, false);
  for (let call = 0; call < 11; call++) {
    throttle.succeeded();
  }
  assert.equal(throttle.allows, true);

  await withGateway({ create: inTurn(unavailable("0")) }, async (gateway) => {
    const client = gateway.client();
    for (let call = 0; call < 20; call++) {
      await failure(client.complete(prompt));
    }
    // 50 failures use the throttle up; the calls after that get one attempt each.
    assert.equal(gateway.calls.length, 53);
  });
});
