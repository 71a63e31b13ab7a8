/** When a resumable stream whose call ended is read on over another one. */
import { TrunklineError, Unavailable } from "./errors.js";

/** A stream is given up that was resumed so often without going on. */
const MAX_RESUMES = 5;
const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 5_000;
/** What ends a call and not the completion that it reads. "": the gateway has not said it, the connection broke. */
const OF_THE_CONNECTION: ReadonlySet<string> = new Set(["", "SHUTTING_DOWN", "STORE_UNAVAILABLE"]);
/** What ends a call because its reader has left it, or took too long. */
const OF_THE_READER: ReadonlySet<string> = new Set(["", "GATEWAY_TIMEOUT", "READER_STALLED"]);

/** How one stream fares over connections that break. */
export class Resumes {
  #tries = 0;
  #at = 0;

  /** Milliseconds to wait before the stream is resumed after an event; undefined if it must not be. */
  delayAfter(error: unknown, last: number): number | undefined {
    if (!(error instanceof Unavailable) || !OF_THE_CONNECTION.has(error.reason)) {
      return undefined;
    }
    if (last !== this.#at) {
      this.#at = last;
      this.#tries = 0;
    }
    if (++this.#tries > MAX_RESUMES) {
      return undefined;
    }
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (this.#tries - 1));
    return longest * (0.5 + Math.random() / 2);
  }
}

/** Did the reader leave, so that the completion may go on without it? `error`: what ended its call, if anything did. */
export function left(error: unknown): boolean {
  return !(error instanceof Unavailable) && (!(error instanceof TrunklineError) || OF_THE_READER.has(error.reason));
}
