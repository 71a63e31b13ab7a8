import assert from "node:assert/strict";
import { test } from "node:test";
import { createClient } from "@connectrpc/connect";
import {
  Cancelled,
  Code,
  InternalError,
  RequestTooLarge,
  TimedOut,
  Unimplemented,
  VERSION,
  textOf,
  user,
} from "../src/index.js";
import { type CreateCompletionRequest, FinishReason, ModelService } from "../src/v1.js";
import { type ListTracesRequest, TraceService } from "../src/v1alpha.js";
import { duration, failure, numbered, toArray, withGateway } from "./gateway.js";

const prompt = { model: "fake/echo", messages: [user("Say hello.")] };
const answer = {
  completion: {
    id: "cmpl_1",
    choices: [{ message: { parts: [{ kind: { case: "text", value: { text: "Hello." } } }] }, finishReason: 1 }],
  },
};
const forever = () => new Promise<never>(() => undefined);

test("a prompt becomes a spec and its answer a completion", async () => {
  const asked: CreateCompletionRequest[] = [];
  const create = (request: CreateCompletionRequest) => {
    asked.push(request);
    return answer;
  };
  await withGateway({ create }, async (gateway) => {
    const settings = { requestId: "r-1", options: { includeRaw: true, timeout: duration(1500) } };
    const completion = await gateway.client().complete({ ...prompt, params: { temperature: 0.7 } }, settings);

    assert.equal(textOf(completion), "Hello.");
    assert.equal(completion.choices[0]?.finishReason, FinishReason.STOP);
    const request = asked[0];
    assert.deepEqual(request?.spec?.target, { case: "model", value: "fake/echo" });
    assert.equal(request.spec.params?.temperature, 0.7);
    assert.equal(request.requestId, "r-1");
    assert.equal(request.options?.includeRaw, true);
    assert.equal(request.options.timeout?.nanos, 500_000_000);
  });
});

test("each call has a request id of its own", async () => {
  const ids: string[] = [];
  const create = (request: CreateCompletionRequest) => {
    ids.push(request.requestId);
    return answer;
  };
  await withGateway({ create }, async (gateway) => {
    const client = gateway.client();
    await client.complete(prompt);
    await client.complete(prompt);

    assert.match(ids[0] ?? "", /^[0-9a-f-]{36}$/);
    assert.notEqual(ids[0], ids[1]);
  });
});

test("the key, the user agent and the caller's own metadata go with each call", async () => {
  await withGateway({ create: () => answer }, async (gateway) => {
    const client = gateway.client({ apiKey: "key-1", headers: { "x-team": "blue" } });
    await client.complete(prompt, { headers: { "x-team": "red", "x-replay-id": "7" } });

    const metadata = gateway.calls[0]?.metadata;
    assert.deepEqual(metadata?.get("authorization"), ["Bearer key-1"]);
    assert.deepEqual(metadata.get("user-agent"), [`trunkline-typescript/${VERSION}`]);
    assert.deepEqual(metadata.get("x-team"), ["red"]);
    assert.deepEqual(metadata.get("x-replay-id"), ["7"]);
  });
});

test("every call has a deadline, and the caller's own wins", async () => {
  await withGateway({ create: () => answer, models: () => ({ models: [] }) }, async (gateway) => {
    const client = gateway.client();
    await client.complete(prompt);
    await assert.rejects(client.stream(prompt).collect());
    await toArray(client.models());
    await client.complete(prompt, { timeoutMs: 7_000 });
    await gateway.client({ timeouts: { unaryMs: 90_000 } }).complete(prompt);
    await client.complete(prompt, { timeoutMs: Infinity });
    await client.complete(prompt, { timeoutMs: 1e12 });

    const expected = [600_000, 1_800_000, 30_000, 7_000, 90_000, Infinity, 99_999_999];
    for (const [index, limit] of expected.entries()) {
      const remaining = gateway.calls[index]?.remainingMs ?? NaN;
      assert.ok(remaining === limit || (remaining <= limit && remaining > limit - 2_000), `${remaining} of ${limit}`);
    }
  });
});

for (const timeoutMs of [0, -1, NaN]) {
  test(`a deadline of ${timeoutMs} ms is refused`, async () => {
    await withGateway({ create: () => answer }, async (gateway) => {
      const client = gateway.client();

      await assert.rejects(client.complete(prompt, { timeoutMs }), RangeError);
      await assert.rejects(client.stream(prompt, { timeoutMs }).collect(), RangeError);
      assert.equal(gateway.calls.length, 0);
    });
  });
}

test("a call that outlasts its deadline times out", async () => {
  await withGateway({ create: forever }, async (gateway) => {
    const error = await failure(gateway.client().complete(prompt, { timeoutMs: 50 }));

    assert.ok(error instanceof TimedOut);
    assert.equal(error.code, Code.DeadlineExceeded);
    assert.equal(error.reason, "");
    await gateway.calls[0]?.cancelled;
  });
});

test("the caller's signal cancels a unary call at the gateway too", async () => {
  const leave = new AbortController();
  const create = () => {
    leave.abort(new Error("changed my mind"));
    return forever();
  };
  await withGateway({ create }, async (gateway) => {
    const error = await failure(gateway.client().complete(prompt, { signal: leave.signal }));

    assert.ok(error instanceof Cancelled);
    assert.equal((error.cause as Error).message, "changed my mind");
    await gateway.calls[0]?.cancelled;
  });
});

test("a signal that times out is a deadline", async () => {
  await withGateway({ create: forever }, async (gateway) => {
    assert.ok(
      (await failure(gateway.client().complete(prompt, { signal: AbortSignal.timeout(30) }))) instanceof TimedOut,
    );
  });
});

test("a signal that was aborted before the call makes none", async () => {
  await withGateway({ create: () => answer }, async (gateway) => {
    assert.ok((await failure(gateway.client().complete(prompt, { signal: AbortSignal.abort() }))) instanceof Cancelled);
    assert.equal(gateway.calls.length, 0);
  });
});

test("a caller's signal that outlives many calls keeps none of them", async () => {
  const signal = new AbortController().signal;
  let listeners = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...args: Parameters<typeof add>) => {
    listeners++;
    add(...args);
  };
  signal.removeEventListener = (...args: Parameters<typeof remove>) => {
    listeners--;
    remove(...args);
  };
  await withGateway({ create: () => answer }, async (gateway) => {
    const client = gateway.client();
    await client.complete(prompt, { signal });
    await client.complete(prompt, { signal });

    assert.equal(listeners, 0);
  });
});

test("calls take turns over real connections", async () => {
  await withGateway({ create: () => answer }, async (gateway) => {
    const client = gateway.client({ connections: 3 });
    for (let call = 0; call < 6; call++) {
      await client.complete(prompt);
    }

    const peers = gateway.calls.map(({ peer }) => peer);
    assert.equal(new Set(peers).size, 3);
    assert.deepEqual(peers.slice(0, 3), peers.slice(3));
  });
});

test("calls at once on one connection share it", async () => {
  await withGateway({ create: () => answer }, async (gateway) => {
    const client = gateway.client({ connections: 1 });
    await Promise.all(Array.from({ length: 20 }, () => client.complete(prompt)));

    assert.equal(new Set(gateway.calls.map(({ peer }) => peer)).size, 1);
  });
});

test("an answer of ten megabytes arrives", async () => {
  const value = { text: "x".repeat(10 << 20) };
  const large = { completion: { choices: [{ message: { parts: [{ kind: { case: "text", value } }] } }] } };
  await withGateway({ create: () => large }, async (gateway) => {
    assert.equal(textOf(await gateway.client().complete(prompt)).length, 10 << 20);
  });
});

test("a request above the server's limit is the request's fault", async () => {
  await withGateway({ create: () => answer }, async (gateway) => {
    const large = { ...prompt, messages: [user("x".repeat(5 << 20))] };
    const error = await failure(gateway.client().complete(large));

    assert.ok(error instanceof RequestTooLarge);
    assert.equal(error.code, Code.ResourceExhausted);
  });
});

test("an answer without a completion is the gateway's fault", async () => {
  await withGateway({ create: () => ({}) }, async (gateway) => {
    assert.ok((await failure(gateway.client().complete(prompt))) instanceof InternalError);
  });
});

test("models come page by page", async () => {
  const models = ({ pageToken }: { pageToken: string }) =>
    pageToken === "" ? { models: [{ name: "a" }, { name: "b" }], nextPageToken: "2" } : { models: [{ name: "c" }] };
  await withGateway({ models }, async (gateway) => {
    const found = await toArray(gateway.client().models());

    assert.deepEqual(
      found.map(({ name }) => name),
      ["a", "b", "c"],
    );
  });
});

test("tokens are counted", async () => {
  await withGateway({ count: () => ({ inputTokens: 2 }) }, async (gateway) => {
    assert.equal((await gateway.client().countTokens(prompt)).inputTokens, 2);
  });
});

test("stubs of any service work over the client's channel", async () => {
  await withGateway({ models: () => ({ models: [{ name: "a" }] }) }, async (gateway) => {
    const stub = createClient(ModelService, gateway.client({ apiKey: "k" }).channel);

    assert.equal((await stub.listModels({})).models[0]?.name, "a");
    assert.deepEqual(gateway.calls[0]?.metadata.get("authorization"), ["Bearer k"]);
  });
});

test("records of calls are read with the stubs of v1alpha", async () => {
  const asked: ListTracesRequest[] = [];
  const traces = (request: ListTracesRequest) => {
    asked.push(request);
    return { traces: [{ name: "traces/cmpl_1" }], backend: "sqlite" };
  };
  await withGateway({ traces }, async (gateway) => {
    const stub = createClient(TraceService, gateway.client().channel);
    const failed = await stub.listTraces({ filter: { provider: "openai", status: { case: "failed", value: true } } });

    assert.equal(failed.traces[0]?.name, "traces/cmpl_1");
    assert.deepEqual(asked[0]?.filter?.status, { case: "failed", value: true });
  });
});

test("a method that the server does not know says so", async () => {
  await withGateway({}, async (gateway) => {
    const error = await failure(gateway.client().cancel("cmpl_1"));

    assert.ok(error instanceof Unimplemented);
    assert.equal(error.code, Code.Unimplemented);
  });
});

test("closing the client breaks off its calls and refuses new ones", async () => {
  await withGateway({ create: forever }, async (gateway) => {
    const client = gateway.client({ connections: 1 });
    const open = failure(client.complete(prompt, { timeoutMs: 5_000 }));
    const stream = client.stream(prompt);
    while (gateway.calls.length === 0) {
      await new Promise(setImmediate);
    }
    client.close();

    assert.ok((await open) instanceof Cancelled);
    assert.ok((await failure(client.complete(prompt))) instanceof Cancelled);
    assert.ok((await failure(stream.collect())) instanceof Cancelled);
    assert.equal(gateway.calls.length, 1);
  });
});

test("leaving a stream early cancels it at the gateway", async () => {
  const started = { case: "started" as const, value: { completionId: "cmpl_1" } };
  async function* stream() {
    yield* numbered([started]);
    await forever();
  }
  await withGateway({ stream }, async (gateway) => {
    for await (const event of gateway.client().stream(prompt)) {
      assert.equal(event.event.case, "started");
      break;
    }

    await gateway.calls[0]?.cancelled;
  });
});
