import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Client, VERSION } from "../src/index.js";
import { type ClientOptions, target } from "../src/options.js";

const TARGETS: [ClientOptions, string][] = [
  [{}, "http://127.0.0.1:50051"],
  [{ address: "localhost:1" }, "http://localhost:1"],
  [{ address: "[::1]:50051" }, "http://[::1]:50051"],
  [{ address: "gateway.example.org:443" }, "https://gateway.example.org"],
  [{ address: "dns:///gateway:50051" }, "https://gateway:50051"],
  [{ address: "gateway:50051", tls: false }, "http://gateway:50051"],
  [{ address: "http://gateway:50051" }, "http://gateway:50051"],
  [{ address: "https://127.0.0.1:50051/" }, "https://127.0.0.1:50051"],
  [{ address: "127.0.0.1:50051", tls: true }, "https://127.0.0.1:50051"],
  [{ address: "127.0.0.1.example.org:50051" }, "https://127.0.0.1.example.org:50051"],
];
for (const [options, authority] of TARGETS) {
  test(`${JSON.stringify(options)} connects to ${authority}`, () => {
    assert.equal(target(options, {}).authority, authority);
  });
}

test("the environment names the address where the program does not", () => {
  const env = { TRUNKLINE_ADDRESS: "127.0.0.1:7" };

  assert.equal(target({}, env).authority, "http://127.0.0.1:7");
  assert.equal(target({ address: "127.0.0.1:8" }, env).authority, "http://127.0.0.1:8");
  assert.equal(target({}, { TRUNKLINE_ADDRESS: "" }).authority, "http://127.0.0.1:50051");
});

const WRONG: [ClientOptions, RegExp][] = [
  [{ address: "gateway" }, /address "gateway": expected host:port/],
  [{ address: "ftp://gateway:1" }, /address "ftp:\/\/gateway:1"/],
  [{ address: "gateway:123456" }, /expected host:port/],
  [{ address: "gateway:99999" }, /no port 99999/],
  [{ address: "https://gateway:1", tls: false }, /https contradicts tls: false/],
  [{ tls: { cert: "B", key: "C" } }, /tls: .*expected certificates/],
  [{ tls: { cert: "B" } }, /cert and key belong together/],
  [{ connections: 0 }, /connections 0: expected a whole number of at least 1/],
  [{ maxAttempts: 1.5 }, /maxAttempts 1.5/],
  [{ timeouts: { unaryMs: 0 } }, /timeouts.unaryMs 0: expected more than 0/],
  [{ apiKey: "two\nlines" }, /apiKey: not a header value/],
];
for (const [options, message] of WRONG) {
  test(`${JSON.stringify(options)} is refused`, () => {
    assert.throws(() => new Client(options), message);
  });
}

test("a key that is no header is not repeated in the error", () => {
  assert.throws(
    () => new Client({ apiKey: "secret\n" + "more" }),
    (error: Error) => !error.message.includes("secret"),
  );
});

test("the user agent's version is the package's", () => {
  const file = new URL("../../package.json", import.meta.url);
  const { version } = JSON.parse(readFileSync(file, "utf8")) as { version: string };

  assert.equal(VERSION, version);
});
