import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import * as http2 from "node:http2";
import * as net from "node:net";
import { test } from "node:test";
import { promisify } from "node:util";
import { createClient } from "@connectrpc/connect";
import { Channel } from "../src/channel.js";
import { CONNECTION_TIMES, type ConnectionTimes } from "../src/connection.js";
import { Client, type ClientOptions, InternalError, Unavailable, user } from "../src/index.js";
import { CompletionService } from "../src/v1.js";
import { Gateway, type Script, addressOf, failure, numbered, withGateway } from "./gateway.js";

const prompt = { model: "fake/echo", messages: [user("Say hello.")] };
const answer = { completion: { id: "cmpl_1" } };
const forever = () => new Promise<never>(() => undefined);

/** Stubs over one connection with time limits that a test can wait for. */
function stubs(options: ClientOptions, times: Partial<ConnectionTimes>) {
  const channel = new Channel({ connections: 1, ...options }, { ...CONNECTION_TIMES, ...times });
  return { ...createClient(CompletionService, channel), close: channel.close.bind(channel) };
}

test("a client recovers from a restart with calls in flight", async () => {
  let busy = true;
  async function* stream() {
    yield* numbered([{ case: "started", value: {} }]);
    await forever();
  }
  const script: Script = { create: () => (busy ? forever() : answer), stream };
  const first = await Gateway.start(script);
  const client = new Client({ address: first.address, connections: 1, maxAttempts: 1 });
  const unary = failure(client.complete(prompt));
  const streamed = failure(client.stream(prompt).collect());
  await until(() => first.calls.length === 2);

  first.kill();
  assert.ok((await unary) instanceof Unavailable);
  assert.ok((await streamed) instanceof Unavailable);
  const down = await failure(client.complete(prompt));
  assert.ok(down instanceof Unavailable);
  assert.match(down.message, /ECONNREFUSED/);

  busy = false;
  const second = await Gateway.start(script, { port: first.port });
  assert.equal((await client.complete(prompt)).id, "cmpl_1");
  client.close();
  second.stop();
});

test("a retry bridges a restart", async () => {
  const first = await Gateway.start({ create: forever });
  const client = new Client({ address: first.address });
  const call = client.complete(prompt);
  await until(() => first.calls.length === 1);

  first.kill();
  const second = await Gateway.start({ create: () => answer }, { port: first.port });
  assert.equal((await call).id, "cmpl_1");
  client.close();
  second.stop();
});

test("a server that drains finishes its streams while new calls go to its successor", async () => {
  const { promise: released, resolve: release } = later<undefined>();
  const started = { case: "started" as const, value: { completionId: "cmpl_old" } };
  async function* stream() {
    for await (const event of numbered([started, { case: "finished", value: {} }])) {
      yield event;
      await released;
    }
  }
  const first = await Gateway.start({ stream });
  const client = new Client({ address: first.address, connections: 1 });
  const streamed = client.stream(prompt).collect();
  await until(() => first.calls.length === 1);

  first.drain();
  const second = await Gateway.start({ create: () => answer }, { port: first.port });
  assert.equal((await client.complete(prompt)).id, "cmpl_1");
  release(undefined);
  assert.equal((await streamed).id, "cmpl_old");
  client.close();
  first.kill();
  second.stop();
});

test("a call on a connection that the peer closes just then fails at once and the next one works", async () => {
  await withProxy({ create: () => answer }, async (proxy) => {
    const client = stubs({ address: proxy.address, maxAttempts: 1 }, {});
    await client.createCompletion({});
    proxy.mode = "close";
    assert.ok((await failure(client.createCompletion({}))) instanceof Unavailable);

    proxy.mode = "forward";
    assert.equal((await client.createCompletion({})).completion?.id, "cmpl_1");
    client.close();
  });
});

test("a peer that falls silent during a call is found by a PING", async () => {
  await withProxy({ create: () => answer }, async (proxy) => {
    const times = { keepaliveMs: 40, keepaliveTimeoutMs: 40 };
    const client = stubs({ address: proxy.address, maxAttempts: 1 }, times);
    await client.createCompletion({});
    proxy.mode = "swallow";
    const error = await failure(client.createCompletion({}));
    assert.ok(error instanceof Unavailable);
    assert.match(error.message, /PING/);

    proxy.mode = "forward";
    assert.equal((await client.createCompletion({})).completion?.id, "cmpl_1");
    client.close();
  });
});

test("a peer that answers PINGs may be silent for long", async () => {
  const { promise: released, resolve: release } = later<object>();
  await withGateway({ create: () => released }, async (gateway) => {
    const client = stubs({ address: gateway.address, maxAttempts: 1 }, { keepaliveMs: 20, keepaliveTimeoutMs: 100 });
    const call = client.createCompletion({});
    setTimeout(release, 150, answer);

    assert.equal((await call).completion?.id, "cmpl_1");
    client.close();
  });
});

test("a peer that finds the PINGs too many gets half as many", async () => {
  const pings: number[] = [];
  const server = http2.createServer();
  server.on("session", (session) => {
    session.on("ping", () => {
      pings.push(performance.now() - opened);
      session.goaway(http2.constants.NGHTTP2_ENHANCE_YOUR_CALM, 0, Buffer.from("too_many_pings"));
      session.destroy();
    });
    const opened = performance.now();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = stubs({ address: addressOf(server), maxAttempts: 1 }, { keepaliveMs: 50 });
  assert.ok((await failure(client.createCompletion({}))) instanceof Unavailable);
  assert.ok((await failure(client.createCompletion({}))) instanceof Unavailable);

  assert.ok((pings[0] ?? 0) < 95, pings.join());
  assert.ok((pings[1] ?? 0) > 95, pings.join());
  client.close();
  server.close();
});

test("a connection that idled for too long is replaced", async () => {
  await withGateway({ create: () => answer }, async (gateway) => {
    const client = stubs({ address: gateway.address }, { idleMs: 20 });
    await client.createCompletion({});
    await client.createCompletion({});
    await new Promise((resolve) => setTimeout(resolve, 40));
    await client.createCompletion({});

    const [first, second, third] = gateway.calls.map(({ peer }) => peer);
    assert.equal(first, second);
    assert.notEqual(second, third);
    client.close();
  });
});

test("a connection that never stands is given up", async () => {
  const mute = net.createServer(() => undefined).listen(0, "127.0.0.1");
  await once(mute, "listening");
  const client = stubs({ address: addressOf(mute), tls: true, maxAttempts: 1 }, { connectMs: 40 });
  const error = await failure(client.createCompletion({}));

  assert.ok(error instanceof Unavailable);
  assert.match(error.message, /no connection within 40 ms/);
  client.close();
  mute.close();
});

test("a peer that does not speak HTTP/2 is an error, not a hang", async () => {
  const peer = net.createServer((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n")).listen(0, "127.0.0.1");
  await once(peer, "listening");
  const client = stubs({ address: addressOf(peer), maxAttempts: 1 }, {});

  assert.ok((await failure(client.createCompletion({}))) instanceof Unavailable);
  client.close();
  peer.close();
});

test("a gRPC answer without a status is an error of the server", async () => {
  const server = http2.createServer((_, response) => {
    response.writeHead(200, { "content-type": "application/grpc" });
    response.end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = stubs({ address: addressOf(server), maxAttempts: 1 }, {});

  assert.ok((await failure(client.createCompletion({}))) instanceof InternalError);
  client.close();
  server.close();
});

test("neither an open connection nor a stream left early keeps a program alive", async () => {
  async function* stream() {
    yield* numbered([{ case: "started", value: { completionId: "cmpl_2" } }]);
    await forever();
  }
  await withGateway({ create: () => answer, stream }, async (gateway) => {
    const program = `
      const { connect, user } = await import(process.argv[1]);
      const client = connect();
      const prompt = { model: "fake/echo", messages: [user("Say hello.")] };
      console.log((await client.complete(prompt)).id);
      for await (const { event } of client.stream(prompt)) {
        console.log(event.value.completionId);
        break;
      }`;
    const index = new URL("../src/index.js", import.meta.url).href;
    const env = { ...process.env, TRUNKLINE_ADDRESS: gateway.address };
    const args = ["--input-type=module", "--eval", program, index];
    const { stdout } = await promisify(execFile)(process.execPath, args, { env, timeout: 20_000 });

    assert.equal(stdout, "cmpl_1\ncmpl_2\n");
  });
});

type Mode = "forward" | "close" | "swallow";

/** A proxy before a gateway that can close a connection as soon as something comes, or swallow all. */
async function withProxy(
  script: Script,
  run: (proxy: { address: string; mode: Mode }) => Promise<void>,
): Promise<void> {
  await withGateway(script, async (gateway) => {
    const control = { address: "", mode: "forward" as Mode };
    const sockets = new Set<net.Socket>();
    const server = net.createServer((near) => {
      const far = net.connect(gateway.port, "127.0.0.1");
      for (const socket of [near, far]) {
        sockets.add(socket);
        socket.on("error", () => socket.destroy());
      }
      far.on("data", (data) => control.mode === "forward" && near.write(data));
      near.on("data", (data) => {
        if (control.mode === "forward") {
          far.write(data);
        } else if (control.mode === "close") {
          near.end();
        }
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    control.address = addressOf(server);
    try {
      await run(control);
    } finally {
      sockets.forEach((socket) => socket.destroy());
      server.close();
    }
  });
}

function later<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let settle: ((value: T) => void) | undefined;
  const promise = new Promise<T>((resolve) => {
    settle = resolve;
  });
  return { promise, resolve: (value) => settle?.(value) };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) {
    await new Promise(setImmediate);
  }
}
