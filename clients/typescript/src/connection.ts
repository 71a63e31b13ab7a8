/** One HTTP/2 connection, opened when a call needs it and again after it broke. */
import * as http2 from "node:http2";
import { Code, ConnectError } from "@connectrpc/connect";
import type { GrpcTransportOptions } from "@connectrpc/connect-node";

type SessionManager = NonNullable<GrpcTransportOptions["sessionManager"]>;

/** Time limits of a connection, in milliseconds. */
export interface ConnectionTimes {
  /** Until it stands, TLS included. */
  connectMs: number;
  /** Silence during a call after which a PING asks whether the peer is alive. */
  keepaliveMs: number;
  /** Wait for the answer to that PING. */
  keepaliveTimeoutMs: number;
  /** Idle time after which the next call opens a new connection: middleboxes forget silent ones without a word. */
  idleMs: number;
}

export const CONNECTION_TIMES: ConnectionTimes = {
  connectMs: 10_000,
  keepaliveMs: 60_000,
  keepaliveTimeoutMs: 20_000,
  idleMs: 240_000,
};

const STREAM_WINDOW = 1 << 20;
const CONNECTION_WINDOW = 4 << 20;

/**
 * Opens its session for the first call and replaces it once it broke, was told to go away or idled for too long.
 *
 * connect-node's own manager waits for a PING before it reuses an idle session, and nothing wakes that wait when the
 * peer closes just then: the call hangs until its deadline. Here a call waits for nothing but a connection attempt,
 * which has a time limit.
 */
export class Connection implements SessionManager {
  readonly authority: string;
  readonly #options: http2.SecureClientSessionOptions;
  readonly #times: ConnectionTimes;
  #session: Session | undefined;
  #closed = false;

  constructor(authority: string, options: http2.SecureClientSessionOptions, times: ConnectionTimes) {
    this.authority = authority;
    this.#options = options;
    this.#times = { ...times };
  }

  async request(
    method: string,
    path: string,
    headers: http2.OutgoingHttpHeaders,
    options: http2.ClientSessionRequestOptions,
  ): Promise<http2.ClientHttp2Stream> {
    if (this.#closed) {
      throw new ConnectError("the client is closed", Code.Canceled);
    }
    if (this.#session?.usable() !== true) {
      this.#session?.retire();
      this.#session = new Session(this.authority, this.#options, this.#times);
    }
    const session = this.#session;
    await session.ready;
    return session.request({ ...headers, ":method": method, ":path": path }, options);
  }

  /** This connection, for one call that wants to know when the server began to answer it. */
  observed(begun: () => void): SessionManager {
    return {
      authority: this.authority,
      notifyResponseByteRead: (stream) => {
        this.notifyResponseByteRead(stream);
      },
      request: async (method, path, headers, options) => {
        const stream = await this.request(method, path, headers, options);
        stream.once("response", (response) => {
          // A status among the headers is all there is: the call was refused, not begun.
          if (response["grpc-status"] === undefined) {
            begun();
          }
        });
        return stream;
      },
    };
  }

  notifyResponseByteRead(stream: http2.ClientHttp2Stream): void {
    this.#session?.heard(stream);
  }

  /** Breaks off the calls on this connection and refuses new ones. */
  close(): void {
    this.#closed = true;
    this.#session?.destroy(new ConnectError("the client was closed", Code.Canceled));
    this.#session = undefined;
  }
}

class Session {
  /** Settles when the connection stands; rejects with UNAVAILABLE if it never does. */
  readonly ready: Promise<void>;
  readonly #authority: string;
  readonly #times: ConnectionTimes;
  readonly #http2: http2.ClientHttp2Session;
  #failure: Error | undefined;
  #draining = false;
  #streams = 0;
  #lastUse = performance.now();
  #lastHeard = performance.now();
  #keepalive: NodeJS.Timeout | undefined;

  constructor(authority: string, options: http2.SecureClientSessionOptions, times: ConnectionTimes) {
    this.#authority = authority;
    this.#times = times;
    this.#http2 = http2.connect(authority, {
      // Node's default of 10 MB breaks off calls with large messages.
      maxSessionMemory: Number.MAX_SAFE_INTEGER,
      ...options,
      settings: { enablePush: false, initialWindowSize: STREAM_WINDOW, ...options.settings },
    });
    this.ready = this.#opened();
    this.ready.catch(() => {
      // The calls that wait for it report it.
    });
    this.#http2.on("error", (error: Error) => {
      this.#failure ??= error;
    });
    this.#http2.on("goaway", (code) => {
      this.#draining = true;
      if (code === http2.constants.NGHTTP2_ENHANCE_YOUR_CALM) {
        // The peer found the PINGs too many; gRPC's rule is to halve them.
        this.#times.keepaliveMs *= 2;
      }
    });
    this.#http2.on("close", () => {
      clearTimeout(this.#keepalive);
    });
  }

  usable(): boolean {
    const stale = this.#streams === 0 && performance.now() - this.#lastUse > this.#times.idleMs;
    return !this.#draining && !this.#http2.closed && !this.#http2.destroyed && !stale;
  }

  request(headers: http2.OutgoingHttpHeaders, options: http2.ClientSessionRequestOptions): http2.ClientHttp2Stream {
    let stream: http2.ClientHttp2Stream;
    try {
      stream = this.#http2.request(headers, options);
    } catch (error) {
      throw this.#unavailable("closed before the call was sent", error);
    }
    if (this.#streams++ === 0) {
      this.#http2.ref();
      this.#watch();
    }
    stream.once("response", () => {
      this.heard(stream);
    });
    stream.once("close", () => {
      this.#lastUse = performance.now();
      if (--this.#streams === 0) {
        clearTimeout(this.#keepalive);
        // An idle connection keeps no program alive.
        this.#http2.unref();
      }
    });
    return stream;
  }

  heard(stream: http2.ClientHttp2Stream): void {
    if (stream.session === this.#http2) {
      this.#lastHeard = performance.now();
    }
  }

  /** Lets the open calls finish. */
  retire(): void {
    this.#http2.close();
  }

  destroy(reason: Error): void {
    this.#http2.destroy(reason, http2.constants.NGHTTP2_CANCEL);
  }

  async #opened(): Promise<void> {
    const limit = setTimeout(() => {
      this.#giveUp(`no connection within ${this.#times.connectMs} ms`);
    }, this.#times.connectMs);
    try {
      await new Promise<void>((resolve, reject) => {
        this.#http2.once("connect", () => {
          this.#http2.setLocalWindowSize(CONNECTION_WINDOW);
          resolve();
        });
        this.#http2.once("close", () => {
          reject(this.#unavailable("failed", this.#failure));
        });
      });
    } finally {
      clearTimeout(limit);
    }
  }

  #watch(): void {
    clearTimeout(this.#keepalive);
    const silence = performance.now() - this.#lastHeard;
    this.#keepalive = setTimeout(
      () => {
        this.#checkAlive();
      },
      Math.max(0, this.#times.keepaliveMs - silence),
    ).unref();
  }

  #checkAlive(): void {
    if (performance.now() - this.#lastHeard < this.#times.keepaliveMs) {
      this.#watch();
      return;
    }
    const limit = setTimeout(() => {
      this.#giveUp(`no answer to a PING within ${this.#times.keepaliveTimeoutMs} ms`);
    }, this.#times.keepaliveTimeoutMs).unref();
    this.#http2.ping((error) => {
      clearTimeout(limit);
      if (error === null) {
        this.#lastHeard = performance.now();
        if (this.#streams > 0) {
          this.#watch();
        }
      }
    });
  }

  #giveUp(why: string): void {
    this.destroy(new ConnectError(`connection to ${this.#authority}: ${why}`, Code.Unavailable));
  }

  #unavailable(what: string, cause: unknown): ConnectError {
    if (cause instanceof ConnectError) {
      return cause;
    }
    const because = cause instanceof Error ? `: ${cause.message}` : "";
    const message = `connection to ${this.#authority} ${what}${because}`;
    return new ConnectError(message, Code.Unavailable, undefined, undefined, cause);
  }
}
