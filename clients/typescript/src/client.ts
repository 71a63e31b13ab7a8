/** The client: one object for a program's life. */
import { randomUUID } from "node:crypto";
import { type MessageInitShape, create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { Channel } from "./channel.js";
import { Code, InternalError } from "./errors.js";
import type { ClientOptions, Metadata } from "./options.js";
import { type Parsed, answerFormat, readAnswer } from "./parse.js";
import type { Schema } from "./schema.js";
import { CompletionStream } from "./stream.js";
import {
  type CallOptionsSchema,
  type Completion,
  type CompletionSpec,
  CompletionSpecSchema,
} from "./trunkline/v1/completion_pb.js";
import {
  CompletionService,
  type CountTokensResponse,
  type StreamCompletionRequestSchema,
  type StreamCompletionResponse,
  type StreamOptionsSchema,
} from "./trunkline/v1/completion_service_pb.js";
import { type Model, ModelService } from "./trunkline/v1/model_service_pb.js";

type SpecInit = MessageInitShape<typeof CompletionSpecSchema>;

/** Time to say that a resumable stream was left. */
const LEAVING_MS = 5_000;

/** A `CompletionSpec`, with `model` in place of `target` where that is all there is to say. */
export type Prompt = Omit<SpecInit, "target" | "$typeName" | "$unknown"> &
  ({ model: string; target?: never } | { model?: never; target: CompletionSpec["target"] });

/** What belongs to one call. */
export interface CallSettings {
  /** Deadline in milliseconds, over all attempts; `Infinity` is none. Default: the client's. */
  timeoutMs?: number;
  /** Cancels the call. */
  signal?: AbortSignal;
  /** Metadata for this call. */
  headers?: Metadata;
  /** Names the call in logs and errors. Default: a UUID. */
  requestId?: string;
  /** How the gateway treats the call. */
  options?: MessageInitShape<typeof CallOptionsSchema>;
}

export interface StreamSettings extends CallSettings {
  /** How to stream. */
  streamOptions?: MessageInitShape<typeof StreamOptionsSchema>;
}

export interface ParseSettings extends CallSettings {
  /** Name of the schema, for the model. Default: "response". */
  name?: string;
  /** What the answer is, for the model. */
  description?: string;
  /** Hold the model to the schema exactly. Default: the provider's. */
  strict?: boolean;
}

/** All methods throw TrunklineError. */
export class Client {
  /** For stubs of any service, with the same deadlines, retries and errors: `createClient(Service, client.channel)`. */
  readonly channel: Channel;
  readonly #completions;
  readonly #models;

  constructor(options: ClientOptions = {}) {
    this.channel = new Channel(options);
    this.#completions = createClient(CompletionService, this.channel);
    this.#models = createClient(ModelService, this.channel);
  }

  /** Returns the whole answer at once. */
  async complete(prompt: Prompt, settings: CallSettings = {}): Promise<Completion> {
    const { completion } = await this.#completions.createCompletion(
      { spec: specOf(prompt), requestId: settings.requestId ?? randomUUID(), ...gatewayOptions(settings) },
      settings,
    );
    if (completion === undefined) {
      throw new InternalError("the gateway answered without a completion", { code: Code.Internal });
    }
    return completion;
  }

  /** Streams the answer as it is made. With `streamOptions.resumable` it survives connections that break. */
  stream(prompt: Prompt, settings: StreamSettings = {}): CompletionStream {
    const start = { case: "spec" as const, value: specOf(prompt) };
    const { requestId = randomUUID(), streamOptions } = settings;
    return this.#stream(
      { start, requestId, ...gatewayOptions(settings), ...(streamOptions && { streamOptions }) },
      requestId,
      settings,
    );
  }

  /** A resumable stream of the same caller, from its first event on, as another program or process began it. */
  resume(completionId: string, settings: CallSettings = {}): CompletionStream {
    const { requestId = randomUUID() } = settings;
    return this.#stream({ start: { case: "resume", value: { completionId } }, requestId }, requestId, settings);
  }

  /** Returns an answer that fits the schema, as its type. Throws ParseError, with the completion, if it does not fit. */
  async parse<T>(prompt: Prompt, schema: Schema<T>, settings: ParseSettings = {}): Promise<Parsed<T>> {
    const completion = await this.complete({ ...prompt, responseFormat: answerFormat(schema, settings) }, settings);
    return { value: await readAnswer(completion, schema), completion };
  }

  /** Counts the tokens of a prompt without running it. */
  async countTokens(prompt: Prompt, settings: CallSettings = {}): Promise<CountTokensResponse> {
    return this.#completions.countTokens({ spec: specOf(prompt), ...gatewayOptions(settings) }, settings);
  }

  /** Stops a running completion of the same caller. */
  async cancel(completionId: string, settings: CallSettings = {}): Promise<void> {
    await this.#completions.cancelCompletion({ completionId }, settings);
  }

  /** The models that can be called. */
  async *models(settings: CallSettings = {}): AsyncGenerator<Model, void, void> {
    let pageToken = "";
    do {
      const page = await this.#models.listModels({ pageToken }, settings);
      yield* page.models;
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }

  /** Breaks off the open calls; later ones fail. */
  close(): void {
    this.channel.close();
  }

  #stream(
    request: MessageInitShape<typeof StreamCompletionRequestSchema>,
    requestId: string,
    settings: CallSettings,
  ): CompletionStream {
    // One deadline for the stream, however many calls read it.
    let deadline = Infinity;
    return new CompletionStream({
      open: (point) => {
        if (point === undefined) {
          deadline = performance.now() + (settings.timeoutMs ?? this.channel.streamTimeoutMs);
          return this.#events(request, settings, settings.timeoutMs);
        }
        return this.#events(
          { start: { case: "resume", value: { ...point } }, requestId },
          settings,
          Math.max(1, deadline - performance.now()),
        );
      },
      cancel: (completionId) => this.cancel(completionId, { timeoutMs: LEAVING_MS }),
    });
  }

  async *#events(
    request: MessageInitShape<typeof StreamCompletionRequestSchema>,
    { signal, headers }: CallSettings,
    timeoutMs: number | undefined,
  ): AsyncGenerator<StreamCompletionResponse> {
    const method = CompletionService.method.streamCompletion;
    const response = await this.channel.stream(method, signal, timeoutMs, headers, once(request));
    yield* response.message;
  }
}

/** Opens nothing yet: the first call connects. */
export function connect(options?: ClientOptions): Client {
  return new Client(options);
}

function specOf({ model, target, ...rest }: Prompt): CompletionSpec {
  return create(CompletionSpecSchema, { ...rest, target: target ?? { case: "model", value: model } });
}

function gatewayOptions({ options }: CallSettings) {
  return options === undefined ? {} : { options };
}

// eslint-disable-next-line @typescript-eslint/require-await -- an AsyncIterable is what the channel takes
async function* once<T>(item: T): AsyncGenerator<T> {
  yield item;
}
