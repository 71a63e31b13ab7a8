/** A gateway in the test's own process, on grpc-js: a peer that shares no code with the client's transport. */
import assert from "node:assert/strict";
import type { AddressInfo } from "node:net";
import {
  type DescMessage,
  type DescMethod,
  type MessageInitShape,
  create,
  fromBinary,
  toBinary,
} from "@bufbuild/protobuf";
import { type Any, anyPack } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "../src/google/rpc/error_details_pb.js";
import { StatusSchema } from "../src/google/rpc/status_pb.js";
import { Client, type ClientOptions } from "../src/index.js";
import {
  CompletionService,
  LlmErrorDetailSchema,
  ModelService,
  StreamCompletionResponseSchema,
  type CancelCompletionRequest,
  type CountTokensRequest,
  type CreateCompletionRequest,
  type ListModelsRequest,
  type StreamCompletionRequest,
  type StreamCompletionResponse,
} from "../src/v1.js";
import { type ListTracesRequest, TraceService } from "../src/v1alpha.js";

/** What the gateway saw of a call. */
export interface Seen {
  method: string;
  metadata: grpc.Metadata;
  /** Milliseconds until the deadline that the client sent. */
  remainingMs: number;
  peer: string;
  /** Settles when the caller leaves before the end. */
  cancelled: Promise<void>;
}

type Init<S extends DescMessage> = MessageInitShape<S>;
type Answer<T> = T | Promise<T>;

/** What a test wants answered. A thrown Refusal ends the call with its status. */
export interface Script {
  create?: (request: CreateCompletionRequest, seen: Seen) => Answer<object>;
  stream?: (request: StreamCompletionRequest, seen: Seen) => AsyncIterable<StreamCompletionResponse>;
  cancel?: (request: CancelCompletionRequest, seen: Seen) => Answer<object>;
  count?: (request: CountTokensRequest, seen: Seen) => Answer<object>;
  models?: (request: ListModelsRequest, seen: Seen) => Answer<object>;
  traces?: (request: ListTracesRequest, seen: Seen) => Answer<object>;
}

/** A status with its details, as the real gateway sends it. */
export class Refusal extends Error {
  readonly metadata = new grpc.Metadata();

  constructor(
    readonly code: grpc.status,
    readonly details: string,
    facts: {
      reason?: string;
      domain?: string;
      info?: Record<string, string>;
      retryAfterMs?: number;
      requestId?: string;
      violations?: { field: string; description: string }[];
      detail?: Init<typeof LlmErrorDetailSchema>;
      pushback?: string;
    } = {},
  ) {
    super(details);
    const packed: Any[] = [];
    const add = <S extends DescMessage>(schema: S, value: Init<S> | undefined) => {
      if (value !== undefined) {
        packed.push(anyPack(schema, create(schema, value)));
      }
    };
    const { reason, domain = "trunkline", info = {}, retryAfterMs, requestId, violations, detail, pushback } = facts;
    add(ErrorInfoSchema, reason === undefined ? undefined : { reason, domain, metadata: info });
    add(RetryInfoSchema, retryAfterMs === undefined ? undefined : { retryDelay: duration(retryAfterMs) });
    add(RequestInfoSchema, requestId === undefined ? undefined : { requestId });
    add(BadRequestSchema, violations && { fieldViolations: violations });
    add(LlmErrorDetailSchema, detail);
    if (packed.length > 0) {
      const status = toBinary(StatusSchema, create(StatusSchema, { code, message: details, details: packed }));
      this.metadata.set("grpc-status-details-bin", Buffer.from(status));
    }
    if (pushback !== undefined) {
      this.metadata.set("grpc-retry-pushback-ms", pushback);
    }
  }
}

export function duration(ms: number): { seconds: bigint; nanos: number } {
  return { seconds: BigInt(Math.floor(ms / 1000)), nanos: Math.round((ms % 1000) * 1e6) };
}

export class Gateway {
  readonly calls: Seen[] = [];
  readonly #server = new grpc.Server();
  readonly #clients: Client[] = [];
  port = 0;

  static async start(
    script: Script,
    { port = 0, credentials = grpc.ServerCredentials.createInsecure() } = {},
  ): Promise<Gateway> {
    const gateway = new Gateway(script);
    gateway.port = await new Promise<number>((resolve, reject) => {
      gateway.#server.bindAsync(`127.0.0.1:${port}`, credentials, (error, bound) => {
        if (error === null) {
          resolve(bound);
        } else {
          reject(error);
        }
      });
    });
    return gateway;
  }

  private constructor(script: Script) {
    this.#server.addService(
      {
        CreateCompletion: wire(CompletionService.method.createCompletion),
        StreamCompletion: wire(CompletionService.method.streamCompletion),
        CountTokens: wire(CompletionService.method.countTokens),
        ...(script.cancel && { CancelCompletion: wire(CompletionService.method.cancelCompletion) }),
        ListModels: wire(ModelService.method.listModels),
        ListTraces: wire(TraceService.method.listTraces),
      },
      {
        CreateCompletion: this.#unary("CreateCompletion", script.create),
        StreamCompletion: this.#streaming(script.stream),
        CountTokens: this.#unary("CountTokens", script.count),
        ...(script.cancel && { CancelCompletion: this.#unary("CancelCompletion", script.cancel) }),
        ListModels: this.#unary("ListModels", script.models),
        ListTraces: this.#unary("ListTraces", script.traces),
      },
    );
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** A client of this gateway, closed with it. */
  client(options: ClientOptions = {}): Client {
    const client = new Client({ address: this.address, ...options });
    this.#clients.push(client);
    return client;
  }

  /** Breaks off all calls. */
  stop(): void {
    for (const client of this.#clients) {
      client.close();
    }
    this.kill();
  }

  /** As `stop`, but the clients live on. */
  kill(): void {
    this.#server.forceShutdown();
  }

  /** Lets the open calls finish and takes no new ones. */
  drain(): void {
    this.#server.tryShutdown(() => undefined);
  }

  #unary<I>(method: string, answer: ((request: I, seen: Seen) => Answer<object>) | undefined) {
    return (call: grpc.ServerUnaryCall<I, object>, reply: grpc.sendUnaryData<object>): void => {
      const seen = this.#see(method, call);
      Promise.resolve()
        .then(() => answer?.(call.request, seen) ?? {})
        .then(
          (value) => {
            reply(null, value);
          },
          (error: unknown) => {
            reply(error as grpc.ServiceError);
          },
        );
    };
  }

  #streaming(answer: Script["stream"]) {
    return (call: grpc.ServerWritableStream<StreamCompletionRequest, object>): void => {
      const seen = this.#see("StreamCompletion", call);
      const send = async () => {
        for await (const event of answer?.(call.request, seen) ?? []) {
          call.write(event);
        }
        call.end();
      };
      send().catch((error: unknown) => call.emit("error", error));
    };
  }

  #see(method: string, call: grpc.ServerUnaryCall<unknown, object> | grpc.ServerWritableStream<unknown, object>): Seen {
    const deadline = call.getDeadline();
    const seen: Seen = {
      method,
      metadata: call.metadata,
      remainingMs: (deadline instanceof Date ? deadline.getTime() : deadline) - Date.now(),
      peer: call.getPeer(),
      cancelled: new Promise((resolve) => call.once("cancelled", resolve)),
    };
    this.calls.push(seen);
    return seen;
  }
}

/** Runs a test against a gateway, which is stopped whatever happens. */
export async function withGateway(script: Script, test: (gateway: Gateway) => Promise<void>): Promise<void> {
  const gateway = await Gateway.start(script);
  try {
    await test(gateway);
  } finally {
    gateway.stop();
  }
}

export type EventInit = Init<typeof StreamCompletionResponseSchema>["event"];

/** Numbers events from 1. */
export async function* numbered(events: readonly EventInit[]): AsyncGenerator<StreamCompletionResponse> {
  for (const [index, event] of events.entries()) {
    await Promise.resolve();
    yield create(StreamCompletionResponseSchema, { sequenceNumber: index + 1, ...(event && { event }) });
  }
}

/** Answers each call with the next of these, and from then on with the last; an Error is thrown. */
export function inTurn(...answers: object[]): () => object {
  let turn = 0;
  return () => {
    const answer = answers[Math.min(turn++, answers.length - 1)] ?? {};
    if (answer instanceof Error) {
      throw answer;
    }
    return answer;
  };
}

export function addressOf(server: { address(): AddressInfo | string | null }): string {
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** What a call fails with. */
export async function failure(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => assert.fail("the call did not fail"),
    (error: unknown) => error,
  );
}

export async function toArray<T>(items: AsyncIterable<T>): Promise<T[]> {
  const array: T[] = [];
  for await (const item of items) {
    array.push(item);
  }
  return array;
}

function wire({ parent, name, input, output, methodKind }: DescMethod): grpc.MethodDefinition<object, object> {
  return {
    path: `/${parent.typeName}/${name}`,
    requestStream: false,
    responseStream: methodKind === "server_streaming",
    requestSerialize: (value) => Buffer.from(toBinary(input, create(input, value as Record<string, unknown>))),
    requestDeserialize: (bytes) => fromBinary(input, bytes),
    responseSerialize: (value) => Buffer.from(toBinary(output, create(output, value as Record<string, unknown>))),
    responseDeserialize: (bytes) => fromBinary(output, bytes),
  };
}
