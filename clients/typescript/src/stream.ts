/** A completion as it is made. */
import { setTimeout as sleep } from "node:timers/promises";
import { Collector } from "./collector.js";
import { TrunklineError } from "./errors.js";
import { Resumes, left } from "./resume.js";
import type { Completion } from "./trunkline/v1/completion_pb.js";
import type { StreamCompletionResponse } from "./trunkline/v1/completion_service_pb.js";

/** A point to go on from: the completion, and the number of the last event that was seen. */
export interface Point {
  completionId: string;
  afterSequenceNumber: number;
}

/** The calls that read a stream. */
export interface Calls {
  /** Begins it, or goes on from a point of it. */
  open: (point?: Point) => AsyncIterable<StreamCompletionResponse>;
  /** Ends a completion that would go on without its reader. */
  cancel: (completionId: string) => Promise<void>;
}

/**
 * Reads once: as events, as text or at one go. The call is made when reading begins; leaving early cancels it.
 * Whoever reads to the end knows that the answer is whole: a stream without `finished` throws StreamIncomplete.
 * One that is resumable (`StreamOptions.resumable`) goes on over another connection where one breaks.
 */
export class CompletionStream implements AsyncIterable<StreamCompletionResponse> {
  readonly #calls: Calls;
  readonly #collector = new Collector();
  readonly #resumes = new Resumes();
  #read = false;
  /** Where a resumable stream is; undefined for all others. */
  #point: Point | undefined;

  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /** The events, checked against the rules of the stream. */
  async *[Symbol.asyncIterator](): AsyncGenerator<StreamCompletionResponse, void, void> {
    if (this.#read) {
      throw new TypeError("a stream is read once; this one was");
    }
    this.#read = true;
    let failure: unknown;
    let whole = false;
    try {
      yield* this.#events();
      whole = true;
    } catch (error) {
      failure = error;
      if (error instanceof TrunklineError) {
        error.completion ??= this.snapshot();
      }
      throw error;
    } finally {
      if (!whole && this.#point !== undefined && left(failure)) {
        // If it cannot be said, the completion ends after a while.
        await this.#calls.cancel(this.#point.completionId).catch(() => undefined);
      }
    }
    this.#collector.completion();
  }

  async *#events(): AsyncGenerator<StreamCompletionResponse, void, void> {
    for (;;) {
      try {
        for await (const event of this.#calls.open(this.#point)) {
          this.#collector.add(event);
          this.#follow(event);
          yield event;
        }
        return;
      } catch (error) {
        const delay = this.#point && this.#resumes.delayAfter(error, this.#point.afterSequenceNumber);
        if (delay === undefined) {
          throw error;
        }
        await sleep(delay);
      }
    }
  }

  #follow({ event, sequenceNumber }: StreamCompletionResponse): void {
    if (event.case === "started" && event.value.resumable) {
      this.#point = { completionId: event.value.completionId, afterSequenceNumber: sequenceNumber };
    } else if (this.#point !== undefined) {
      this.#point.afterSequenceNumber = sequenceNumber;
    }
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
