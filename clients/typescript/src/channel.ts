/** Calls over several connections, each with a deadline, the caller's key, retries and our errors. */
import { setTimeout as sleep } from "node:timers/promises";
import type {
  DescMessage,
  DescMethod,
  DescMethodStreaming,
  DescMethodUnary,
  MessageInitShape,
} from "@bufbuild/protobuf";
import { Code, ConnectError, type ContextValues, type Transport } from "@connectrpc/connect";
import type { StreamResponse, UnaryResponse } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { CONNECTION_TIMES, Connection, type ConnectionTimes } from "./connection.js";
import { toTrunklineError } from "./errors.js";
import {
  type ClientOptions,
  DEFAULT_CONNECTIONS,
  type Metadata,
  type Timeouts,
  headersOf,
  positive,
  target,
  timeoutsOf,
} from "./options.js";
import { Attempts, type RetryPolicy, RetryThrottle } from "./retry.js";
import { ModelService } from "./trunkline/v1/model_service_pb.js";

const RECEIVE_MAX_BYTES = 64 << 20;
/** gRPC writes a deadline in eight digits at most: 27 hours. */
const MAX_TIMEOUT_MS = 99_999_999;
const COMPLETION_RETRY: RetryPolicy = { maxAttempts: 3, initialBackoffMs: 200, maxBackoffMs: 5_000 };
const MODEL_RETRY: RetryPolicy = { maxAttempts: 4, initialBackoffMs: 100, maxBackoffMs: 2_000 };

/**
 * A Connect transport, so that `createClient(AnyService, channel)` gives stubs with the same deadlines, retries and
 * errors. Nothing connects before the first call.
 */
export class Channel implements Transport {
  readonly #connections: readonly Connection[];
  readonly #headers: Headers;
  readonly #timeouts: Timeouts;
  readonly #options: ClientOptions;
  readonly #throttle = new RetryThrottle();
  readonly #turns: Generator<Connection, never>;

  constructor(options: ClientOptions, times: ConnectionTimes = CONNECTION_TIMES, env = process.env) {
    const { authority, session } = target(options, env);
    const length = positive("connections", options.connections ?? DEFAULT_CONNECTIONS);
    positive("maxAttempts", options.maxAttempts ?? 1);
    this.#options = options;
    this.#timeouts = timeoutsOf(options);
    this.#headers = headersOf(options, env);
    this.#connections = Array.from({ length }, () => new Connection(authority, session, times));
    this.#turns = inTurn(this.#connections);
  }

  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: Metadata | undefined,
    input: MessageInitShape<I>,
    contextValues?: ContextValues,
  ): Promise<UnaryResponse<I, O>> {
    const limitMs = this.#limit(method, timeoutMs);
    const leaving = new Leaving(signal);
    try {
      return await this.#attempt(method, leaving.signal, limitMs, header, (transport, ms, headers) =>
        transport.unary(method, leaving.signal, ms, headers, input, contextValues),
      );
    } catch (error) {
      throw toTrunklineError(error, signal);
    } finally {
      leaving.done();
    }
  }

  /** Retried only while nothing has come back: headers commit a call. Leaving the messages early cancels it. */
  async stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodStreaming<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: Metadata | undefined,
    input: AsyncIterable<MessageInitShape<I>>,
    contextValues?: ContextValues,
  ): Promise<StreamResponse<I, O>> {
    const limitMs = this.#limit(method, timeoutMs);
    const leaving = new Leaving(signal);
    try {
      const requests = await toArray(input);
      const response = await this.#attempt(method, leaving.signal, limitMs, header, (transport, ms, headers) =>
        transport.stream(method, leaving.signal, ms, headers, replay(requests), contextValues),
      );
      return { ...response, message: until(leaving, signal, response.message) };
    } catch (error) {
      leaving.done();
      throw toTrunklineError(error, signal);
    }
  }

  /** Time limit of a stream that has none of its own, in milliseconds. */
  get streamTimeoutMs(): number {
    return this.#timeouts.streamMs;
  }

  /** Breaks off the open calls; later ones fail. */
  close(): void {
    for (const connection of this.#connections) {
      connection.close();
    }
  }

  async #attempt<T>(
    method: DescMethod,
    signal: AbortSignal,
    limitMs: number,
    header: Metadata | undefined,
    send: (transport: Transport, timeoutMs: number | undefined, headers: Headers) => Promise<T>,
  ): Promise<T> {
    const deadline = performance.now() + limitMs;
    const attempts = this.#attempts(method);
    for (;;) {
      const remaining = remainingMs(deadline);
      let begun = false;
      const transport = over(this.#turns.next().value, () => {
        begun = true;
      });
      try {
        const response = await send(transport, remaining, this.#headersFor(header, attempts.made));
        attempts.succeeded();
        return response;
      } catch (failure) {
        if (signal.aborted) {
          throw failure;
        }
        const error = toTrunklineError(failure);
        const delay = attempts.delayAfter(error, begun);
        if (delay === undefined || performance.now() + delay >= deadline) {
          throw error;
        }
        await sleep(delay, undefined, { signal });
      }
    }
  }

  /** Throws a RangeError unless the caller's own limit, if any, is more than 0. */
  #limit({ parent, methodKind }: DescMethod, own: number | undefined): number {
    const { modelsMs, streamMs, unaryMs } = this.#timeouts;
    const forUnary = parent.typeName === ModelService.typeName ? modelsMs : unaryMs;
    const limitMs = own ?? (methodKind === "unary" ? forUnary : streamMs);
    if (!(limitMs > 0)) {
      throw new RangeError(`timeoutMs ${limitMs}: expected more than 0 milliseconds`);
    }
    return limitMs;
  }

  #attempts({ parent }: DescMethod): Attempts {
    const policy = parent.typeName === ModelService.typeName ? MODEL_RETRY : COMPLETION_RETRY;
    const maxAttempts = this.#options.maxAttempts ?? policy.maxAttempts;
    return new Attempts({ ...policy, maxAttempts }, this.#throttle, this.#options.retryRateLimits ?? false);
  }

  #headersFor(own: Metadata | undefined, attempt: number): Headers {
    const headers = new Headers(this.#headers);
    new Headers(own).forEach((value, name) => {
      headers.set(name, value);
    });
    if (attempt > 1) {
      headers.set("grpc-previous-rpc-attempts", String(attempt - 1));
    }
    return headers;
  }
}

/** Says to a call that its caller has gone, because of the caller's signal or because nobody reads any more. */
class Leaving {
  readonly #controller = new AbortController();
  readonly #caller: AbortSignal | undefined;
  readonly done = (): void => {
    this.#caller?.removeEventListener("abort", this.done);
    // With this code connect resets the stream with CANCEL, as gRPC wants it.
    this.#controller.abort(new ConnectError("the caller left", Code.Canceled));
  };

  constructor(caller: AbortSignal | undefined) {
    this.#caller = caller;
    caller?.addEventListener("abort", this.done);
    if (caller?.aborted === true) {
      this.done();
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }
}

async function* until<T>(leaving: Leaving, caller: AbortSignal | undefined, messages: AsyncIterable<T>) {
  const iterator = messages[Symbol.asyncIterator]();
  try {
    for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) {
      yield next.value;
    }
  } catch (error) {
    throw toTrunklineError(error, caller);
  } finally {
    leaving.done();
    // connect clears the timer of a deadline, which keeps a program alive, only when it is asked for more.
    iterator.next().catch(() => undefined);
  }
}

function remainingMs(deadline: number): number | undefined {
  const remaining = Math.ceil(deadline - performance.now());
  return Number.isFinite(remaining) ? Math.min(Math.max(remaining, 1), MAX_TIMEOUT_MS) : undefined;
}

/** A transport for one attempt. */
function over(connection: Connection, begun: () => void): Transport {
  return createGrpcTransport({
    baseUrl: connection.authority,
    sessionManager: connection.observed(begun),
    readMaxBytes: RECEIVE_MAX_BYTES,
    // Deltas are too small to gain from it.
    acceptCompression: [],
  });
}

function* inTurn<T>(items: readonly T[]): Generator<T, never> {
  for (;;) {
    yield* items;
  }
}

async function toArray<T>(items: AsyncIterable<T>): Promise<T[]> {
  const array: T[] = [];
  for await (const item of items) {
    array.push(item);
  }
  return array;
}

// eslint-disable-next-line @typescript-eslint/require-await -- an AsyncIterable is what the transport takes
async function* replay<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}
