/** When a failed call is worth another attempt: gRPC's retry design (gRFC A6), which connect-node lacks. */
import { Code } from "@connectrpc/connect";
import type { TrunklineError } from "./errors.js";

/** As `retryPolicy` of a gRPC service config, for UNAVAILABLE alone. */
export interface RetryPolicy {
  /** Attempts in all; 1 turns retries off. */
  maxAttempts: number;
  initialBackoffMs: number;
  maxBackoffMs: number;
}

const MAX_TOKENS = 100;
const TOKEN_RATIO = 0.1;
const BACKOFF_MULTIPLIER = 2;
const JITTER = 0.2;

/** Stops retries while most calls fail: each failure costs one token, each success gives a tenth back. */
export class RetryThrottle {
  #tokens = MAX_TOKENS;

  succeeded(): void {
    this.#tokens = Math.min(MAX_TOKENS, this.#tokens + TOKEN_RATIO);
  }

  failed(): void {
    this.#tokens = Math.max(0, this.#tokens - 1);
  }

  get allows(): boolean {
    return this.#tokens > MAX_TOKENS / 2;
  }
}

/** The attempts of one call. */
export class Attempts {
  readonly #policy: RetryPolicy;
  readonly #throttle: RetryThrottle;
  readonly #rateLimitsToo: boolean;
  #made = 1;
  #backoffs = 0;

  constructor(policy: RetryPolicy, throttle: RetryThrottle, rateLimitsToo: boolean) {
    this.#policy = policy;
    this.#throttle = throttle;
    this.#rateLimitsToo = rateLimitsToo;
  }

  /** Attempts made before the next one. */
  get made(): number {
    return this.#made;
  }

  succeeded(): void {
    this.#throttle.succeeded();
  }

  /**
   * Milliseconds to wait before another attempt; undefined if there must be none.
   * `begun`: the server has sent headers, so it has begun to answer, and such a call is never sent again.
   */
  delayAfter(error: TrunklineError, begun: boolean): number | undefined {
    const pushback = pushbackOf(error);
    const rateLimited = this.#rateLimitsToo && error.code === Code.ResourceExhausted;
    if (error.code === Code.Unavailable || pushback === "never") {
      this.#throttle.failed();
    }
    if (pushback === "never" || begun || !this.#throttle.allows || this.#made >= this.#policy.maxAttempts) {
      return undefined;
    }
    const wait = pushback ?? (rateLimited ? error.retryAfterMs : undefined);
    if (error.code !== Code.Unavailable && !(rateLimited && wait !== undefined)) {
      return undefined;
    }
    this.#made++;
    if (wait === undefined) {
      return this.#backoff();
    }
    this.#backoffs = 0;
    return wait;
  }

  #backoff(): number {
    const { initialBackoffMs, maxBackoffMs } = this.#policy;
    const base = Math.min(initialBackoffMs * BACKOFF_MULTIPLIER ** this.#backoffs++, maxBackoffMs);
    return base * (1 - JITTER + 2 * JITTER * Math.random());
  }
}

/** What the server says of a retry: milliseconds to wait, "never", or nothing. An unreadable value means never. */
export function pushbackOf(error: TrunklineError): number | "never" | undefined {
  const value = error.headers.get("grpc-retry-pushback-ms");
  if (value === null) {
    return undefined;
  }
  return /^\d+$/.test(value) ? Number(value) : "never";
}
