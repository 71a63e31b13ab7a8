/** A completion as it is made. */
import { Collector } from "./collector.js";
import { TrunklineError } from "./errors.js";
import type { Completion } from "./trunkline/v1/completion_pb.js";
import type { StreamCompletionResponse } from "./trunkline/v1/completion_service_pb.js";

/**
 * Reads once: as events, as text or at one go. The call is made when reading begins; leaving early cancels it.
 * Whoever reads to the end knows that the answer is whole: a stream without `finished` throws StreamIncomplete.
 */
export class CompletionStream implements AsyncIterable<StreamCompletionResponse> {
  readonly #open: () => AsyncIterable<StreamCompletionResponse>;
  readonly #collector = new Collector();
  #read = false;

  constructor(open: () => AsyncIterable<StreamCompletionResponse>) {
    this.#open = open;
  }

  /** The events, checked against the rules of the stream. */
  async *[Symbol.asyncIterator](): AsyncGenerator<StreamCompletionResponse, void, void> {
    if (this.#read) {
      throw new TypeError("a stream is read once; this one was");
    }
    this.#read = true;
    try {
      for await (const event of this.#open()) {
        this.#collector.add(event);
        yield event;
      }
    } catch (error) {
      if (error instanceof TrunklineError) {
        error.completion ??= this.snapshot();
      }
      throw error;
    }
    this.#collector.completion();
  }

  /** The text of the first choice as it arrives; reasoning and refusals are no part of it. */
  async *text(): AsyncGenerator<string, void, void> {
    let parts = new Set<number>();
    let given = false;
    for await (const { event } of this) {
      if (event.case === "restarted") {
        parts = new Set();
      }
      if (event.case === "restarted" && given) {
        throw new TypeError("the answer began again after text was given out; read the events to follow that");
      }
      const piece = textOf(event, parts);
      if (piece !== "") {
        given = true;
        yield piece;
      }
    }
  }

  /** Reads what is left and returns what a unary call would have returned. */
  async collect(): Promise<Completion> {
    if (!this.#read) {
      // eslint-disable-next-line @typescript-eslint/no-unused-vars -- each event is kept by the collector
      for await (const _ of this);
    }
    return this.#collector.completion();
  }

  /** The completion as far as it has come, also after an error. */
  snapshot(): Completion {
    return this.#collector.snapshot();
  }
}

/** Text that an event brings to choice 0, whose text parts are collected in `parts`. */
function textOf(event: StreamCompletionResponse["event"], parts: Set<number>): string {
  if (event.case === "partStarted" && event.value.choiceIndex === 0 && event.value.part?.kind.case === "text") {
    parts.add(event.value.partIndex);
    return event.value.part.kind.value.text;
  }
  if (event.case === "partDelta" && event.value.choiceIndex === 0 && parts.has(event.value.partIndex)) {
    return event.value.delta.case === "text" ? event.value.delta.value : "";
  }
  return "";
}
