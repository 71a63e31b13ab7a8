import assert from "node:assert/strict";
import { test } from "node:test";
import * as grpc from "@grpc/grpc-js";
import { generate } from "selfsigned";
import { Client, Unavailable, user } from "../src/index.js";
import { Gateway, failure } from "./gateway.js";

const prompt = { model: "fake/echo", messages: [user("Say hello.")] };
const answer = { completion: { id: "cmpl_1" } };
const kind = { algorithm: "sha256", keyType: "ec" } as const;
const authority = await generate([{ name: "commonName", value: "Test authority" }], {
  ...kind,
  extensions: [
    { name: "basicConstraints", cA: true, critical: true },
    { name: "keyUsage", keyCertSign: true, critical: true },
  ],
});
const ca = { key: authority.private, cert: authority.cert };
const server = await generate([{ name: "commonName", value: "gateway.test" }], {
  ...kind,
  ca,
  extensions: [{ name: "subjectAltName", altNames: [{ type: 2, value: "gateway.test" }] }],
});
const caller = await generate([{ name: "commonName", value: "caller.test" }], { ...kind, ca });
const ours = { ca: authority.cert, serverName: "gateway.test" };

/** A gateway that speaks TLS and, if `mutual`, wants to know its callers. */
async function withTls(mutual: boolean, run: (gateway: Gateway) => Promise<void>): Promise<void> {
  const pair = [{ cert_chain: Buffer.from(server.cert), private_key: Buffer.from(server.private) }];
  const credentials = grpc.ServerCredentials.createSsl(mutual ? Buffer.from(authority.cert) : null, pair, mutual);
  const gateway = await Gateway.start({ create: () => answer }, { credentials });
  try {
    await run(gateway);
  } finally {
    gateway.stop();
  }
}

test("a gateway with a certificate that the caller trusts is called", async () => {
  await withTls(false, async (gateway) => {
    assert.equal((await gateway.client({ tls: ours }).complete(prompt)).id, "cmpl_1");
  });
});

test("a gateway with an unknown certificate is not", async () => {
  await withTls(false, async (gateway) => {
    const error = await failure(gateway.client({ tls: true, maxAttempts: 1 }).complete(prompt));

    assert.ok(error instanceof Unavailable);
    assert.match(error.message, /unable to verify|self-signed certificate/);
    assert.equal(gateway.calls.length, 0);
  });
});

test("a certificate for another name is refused", async () => {
  await withTls(false, async (gateway) => {
    const tls = { ...ours, serverName: "other.test" };

    assert.match(String(await failure(gateway.client({ tls, maxAttempts: 1 }).complete(prompt))), /other\.test/);
  });
});

test("mutual TLS shows the caller's certificate", async () => {
  await withTls(true, async (gateway) => {
    const mutual = { ...ours, cert: caller.cert, key: caller.private };

    assert.equal((await gateway.client({ tls: mutual }).complete(prompt)).id, "cmpl_1");
    assert.ok((await failure(gateway.client({ tls: ours, maxAttempts: 1 }).complete(prompt))) instanceof Unavailable);
    assert.equal(gateway.calls.length, 1);
  });
});

test("plain text to a TLS port fails with a clear error", async () => {
  await withTls(false, async (gateway) => {
    const client = new Client({ address: gateway.address, tls: false, maxAttempts: 1 });

    assert.ok((await failure(client.complete(prompt, { timeoutMs: 5_000 }))) instanceof Unavailable);
    client.close();
  });
});
