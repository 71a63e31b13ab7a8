import assert from "node:assert/strict";
import { test } from "node:test";
import { Code as ConnectCode, ConnectError } from "@connectrpc/connect";
import * as grpc from "@grpc/grpc-js";
import { FAMILIES, toTrunklineError } from "../src/errors.js";
import * as client from "../src/index.js";
import { ErrorReason } from "../src/v1.js";
import { Refusal, failure, withGateway } from "./gateway.js";

const prompt = { model: "fake/echo", messages: [client.user("Say hello.")] };

async function errorOf(refusal: Refusal): Promise<client.TrunklineError> {
  let error: unknown;
  const create = () => {
    throw refusal;
  };
  await withGateway({ create }, async (gateway) => {
    error = await failure(gateway.client({ maxAttempts: 1 }).complete(prompt));
  });
  assert.ok(error instanceof client.TrunklineError);
  return error;
}

test("a rate limit carries the reason, the delay and the id of the call", async () => {
  const error = await errorOf(
    new Refusal(grpc.status.RESOURCE_EXHAUSTED, "rate limited by openai; retry in 1.25 s", {
      reason: "LLM_RATE_LIMITED",
      retryAfterMs: 1250,
      requestId: "cmpl_7",
      detail: {
        provider: "openai",
        upstreamStatus: 429,
        retryable: true,
        attempts: [{ attempt: 1, reason: "LLM_RATE_LIMITED" }],
      },
    }),
  );

  assert.ok(error instanceof client.RateLimited);
  assert.equal(error.name, "RateLimited");
  assert.equal(error.code, client.Code.ResourceExhausted);
  assert.equal(error.reason, "LLM_RATE_LIMITED");
  assert.equal(error.message, "rate limited by openai; retry in 1.25 s");
  assert.equal(error.retryable, true);
  assert.equal(error.retryAfterMs, 1250);
  assert.equal(error.requestId, "cmpl_7");
  assert.equal(error.detail?.provider, "openai");
  assert.equal(error.detail.upstreamStatus, 429);
  assert.equal(error.detail.attempts.length, 1);
});

test("an invalid request names every field that is wrong", async () => {
  const violations = [
    { field: "spec.messages", description: "at least one message" },
    { field: "spec.params.top_p", description: "0 to 1, got 3" },
  ];
  const error = await errorOf(
    new Refusal(grpc.status.INVALID_ARGUMENT, "2 fields are wrong", { reason: "INVALID_REQUEST", violations }),
  );

  assert.ok(error instanceof client.InvalidRequest);
  assert.deepEqual(error.violations, violations);
  assert.equal(error.retryable, false);
});

test("a context window that is too small says how large it is", async () => {
  const error = await errorOf(
    new Refusal(grpc.status.INVALID_ARGUMENT, "the prompt is too long", {
      reason: "LLM_CONTEXT_WINDOW_EXCEEDED",
      info: { maxInputTokens: "8192" },
    }),
  );

  assert.ok(error instanceof client.ContextWindowExceeded);
  assert.ok(error instanceof client.InvalidRequest);
  assert.deepEqual(error.metadata, { maxInputTokens: "8192" });
});

const FAMILY_OF = {
  CALLER_UNAUTHENTICATED: [grpc.status.UNAUTHENTICATED, client.AuthenticationError],
  CALLER_PERMISSION_DENIED: [grpc.status.PERMISSION_DENIED, client.PermissionDenied],
  MODEL_NOT_FOUND: [grpc.status.NOT_FOUND, client.NotFound],
  GATEWAY_OVERLOADED: [grpc.status.UNAVAILABLE, client.Overloaded],
  BUDGET_EXHAUSTED: [grpc.status.RESOURCE_EXHAUSTED, client.BudgetExhausted],
  REQUEST_ID_REUSED: [grpc.status.ALREADY_EXISTS, client.Conflict],
  INTERNAL: [grpc.status.INTERNAL, client.InternalError],
  SHUTTING_DOWN: [grpc.status.UNAVAILABLE, client.Unavailable],
  GATEWAY_TIMEOUT: [grpc.status.DEADLINE_EXCEEDED, client.TimedOut],
  CANCELLED: [grpc.status.CANCELLED, client.Cancelled],
  LLM_AUTHENTICATION: [grpc.status.FAILED_PRECONDITION, client.ProviderAuthenticationError],
  LLM_CONTENT_FILTERED: [grpc.status.INVALID_ARGUMENT, client.ContentFiltered],
  LLM_INSUFFICIENT_CREDITS: [grpc.status.FAILED_PRECONDITION, client.InsufficientCredits],
  LLM_UNKNOWN: [grpc.status.INTERNAL, client.InternalError],
} as const;
for (const [reason, [code, family]] of Object.entries(FAMILY_OF)) {
  test(`${reason} is ${family.name}`, async () => {
    const error = await errorOf(new Refusal(code, "no", { reason }));

    assert.equal(error.constructor, family);
    assert.equal(error.reason, reason);
    assert.equal(error.code, code);
  });
}

test("every reason of the contract has a family", () => {
  const reasons = Object.keys(ErrorReason).filter((name) => Number.isNaN(Number(name)) && name !== "UNSPECIFIED");

  assert.deepEqual(Object.keys(FAMILIES).sort(), reasons.sort());
});

const WITHOUT_DETAILS = [
  [grpc.status.UNAVAILABLE, "Cancelling all calls", client.Unreachable, true],
  [grpc.status.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!", client.Overloaded, false],
  [grpc.status.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (9 vs. 4)", client.RequestTooLarge, false],
  [grpc.status.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max", client.InternalError, false],
  [grpc.status.RESOURCE_EXHAUSTED, "rate limited by the mesh", client.RateLimited, false],
  [grpc.status.FAILED_PRECONDITION, "not now", client.TrunklineError, false],
  [grpc.status.RESOURCE_EXHAUSTED, "received metadata size exceeds soft limit", client.InternalError, false],
  [grpc.status.DEADLINE_EXCEEDED, "Deadline Exceeded", client.TimedOut, false],
  [grpc.status.UNKNOWN, "Stream removed", client.InternalError, false],
  [grpc.status.UNIMPLEMENTED, "Method not found!", client.Unimplemented, false],
  [grpc.status.UNAUTHENTICATED, "RBAC: access denied", client.AuthenticationError, false],
] as const;
for (const [code, message, family, retryable] of WITHOUT_DETAILS) {
  test(`${grpc.status[code]} "${message}" without details is ${family.name}`, async () => {
    const error = await errorOf(new Refusal(code, message));

    assert.equal(error.constructor, family);
    assert.equal(error.reason, "");
    assert.equal(error.requestId, "");
    assert.equal(error.retryable, retryable);
    assert.equal(error.message, message);
  });
}

test("a gateway that is newer than this version was reached all the same", async () => {
  const error = await errorOf(new Refusal(grpc.status.UNAVAILABLE, "eclipse", { reason: "SOLAR_ECLIPSE" }));

  assert.equal(error.constructor, client.Unavailable);
});

test("a reason that this version does not know keeps its name and goes by its code", async () => {
  const error = await errorOf(new Refusal(grpc.status.NOT_FOUND, "no such galaxy", { reason: "GALAXY_NOT_FOUND" }));

  assert.ok(error instanceof client.NotFound);
  assert.equal(error.reason, "GALAXY_NOT_FOUND");
});

test("a reason of someone else's domain is not ours", async () => {
  const facts = { reason: "INTERNAL", domain: "mesh.example.org" };
  const error = await errorOf(new Refusal(grpc.status.RESOURCE_EXHAUSTED, "quota", facts));

  assert.ok(error instanceof client.RateLimited);
  assert.equal(error.reason, "");
});

const FROM_THE_TRANSPORT = [
  [new ConnectError("http/2 stream closed with error code CANCEL (0x8)", ConnectCode.Canceled), client.Unreachable],
  [
    new ConnectError("http/2 stream closed with error code REFUSED_STREAM (0x7)", ConnectCode.Unavailable),
    client.Unreachable,
  ],
  [
    new ConnectError("http/2 stream closed with error code PROTOCOL_ERROR (0x1)", ConnectCode.Internal),
    client.InternalError,
  ],
  [withCause("read ECONNRESET", "ECONNRESET", ConnectCode.Aborted), client.Unreachable],
  [withCause("Session closed", "ERR_HTTP2_SESSION_ERROR", ConnectCode.Internal), client.Unreachable],
  [withCause("x: NGHTTP2_INTERNAL_ERROR", "ERR_HTTP2_STREAM_ERROR", ConnectCode.Internal), client.InternalError],
  [new TypeError("a bug"), client.InternalError],
] as const;
for (const [failed, family] of FROM_THE_TRANSPORT) {
  test(`"${failed.message}" from the transport is ${family.name}`, () => {
    assert.equal(toTrunklineError(failed).constructor, family);
  });
}

test("an answer above the client's limit is the gateway's fault", () => {
  const error = toTrunklineError(
    new ConnectError(
      "message size 67108865 is larger than configured readMaxBytes 67108864",
      ConnectCode.ResourceExhausted,
    ),
  );

  assert.ok(error instanceof client.InternalError);
});

test("an error is mapped once", () => {
  const error = toTrunklineError(new ConnectError("x", ConnectCode.NotFound));

  assert.equal(toTrunklineError(error), error);
});

function withCause(message: string, code: string, connectCode: ConnectCode): ConnectError {
  const cause = Object.assign(new Error(message), { code });
  return new ConnectError(message, connectCode, undefined, undefined, cause);
}
