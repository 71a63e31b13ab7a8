/** What a client can be told, with its defaults. */
import type { SecureClientSessionOptions } from "node:http2";
import { createSecureContext } from "node:tls";
import { VERSION } from "./version.js";

/** Certificates of a TLS connection, in PEM. Empty: the system's authorities, no client certificate. */
export interface TlsOptions {
  /** Authorities that may have signed the server's certificate. */
  ca?: string | Buffer;
  /** Certificate of this client, for mutual TLS. Needs `key`. */
  cert?: string | Buffer;
  key?: string | Buffer;
  /** Name in the server's certificate, where it is not the address's. */
  serverName?: string;
}

/** Time limits of calls in milliseconds; `Infinity` is none. */
export interface Timeouts {
  /** Unary calls. Default: 10 minutes. */
  unaryMs: number;
  /** Streams. Default: 30 minutes. */
  streamMs: number;
  /** Calls about models. Default: 30 seconds. */
  modelsMs: number;
}

/** Headers of a call. */
export type Metadata = NonNullable<ConstructorParameters<typeof Headers>[0]>;

export interface ClientOptions {
  /** `host:port`, `http://host:port` or `https://host:port`. Default: `TRUNKLINE_ADDRESS`, else `127.0.0.1:50051`. */
  address?: string | undefined;
  /** Sent as `authorization: Bearer`. Default: `TRUNKLINE_API_KEY`, else none. */
  apiKey?: string | undefined;
  /** TLS or not. Default: not for a loopback address or `http:`, else yes. */
  tls?: boolean | TlsOptions;
  /** TCP connections; calls take turns, so that they reach all workers behind one port. Default 2. */
  connections?: number;
  timeouts?: Partial<Timeouts>;
  /** Attempts at a call that ends with UNAVAILABLE; 1 turns retries off. Default 3. */
  maxAttempts?: number;
  /** Also retry calls that are rate limited, after the delay that the server gives. Default: no. */
  retryRateLimits?: boolean;
  /** Metadata for each call. */
  headers?: Metadata;
}

const DEFAULT_ADDRESS = "127.0.0.1:50051";
const DEFAULT_TIMEOUTS: Timeouts = { unaryMs: 600_000, streamMs: 1_800_000, modelsMs: 30_000 };
export const DEFAULT_CONNECTIONS = 2;

/** Where to connect and how, read from the options and the environment. */
export interface Target {
  authority: string;
  session: SecureClientSessionOptions;
}

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

/** Throws a RangeError that names the option and its value. */
export function target(options: ClientOptions, env: NodeJS.ProcessEnv): Target {
  const address = options.address ?? setting(env, "TRUNKLINE_ADDRESS") ?? DEFAULT_ADDRESS;
  const match = /^(?:(https?):\/\/|dns:\/{0,3})?(\[[0-9a-f:.]+\]|[^:/[\]]+):(\d{1,5})\/?$/i.exec(address);
  if (match === null) {
    throw new RangeError(`address ${JSON.stringify(address)}: expected host:port or https://host:port`);
  }
  const [, scheme, host = "", port = ""] = match;
  const tls = options.tls ?? (scheme === undefined ? !LOOPBACK.test(host) : scheme === "https");
  if (tls === false && scheme === "https") {
    throw new RangeError(`address ${JSON.stringify(address)}: https contradicts tls: false`);
  }
  if (Number(port) > 65_535) {
    throw new RangeError(`address ${JSON.stringify(address)}: there is no port ${port}`);
  }
  const authority = new URL(`${tls === false ? "http" : "https"}://${host}:${port}`).origin;
  return { authority, session: typeof tls === "object" ? session(tls) : {} };
}

function session({ serverName, ...pem }: TlsOptions): SecureClientSessionOptions {
  if ((pem.cert === undefined) !== (pem.key === undefined)) {
    throw new RangeError("tls: cert and key belong together; one is missing");
  }
  try {
    createSecureContext(pem);
  } catch (error) {
    throw new RangeError(`tls: ${(error as Error).message}; expected certificates and a key in PEM`, { cause: error });
  }
  return serverName === undefined ? pem : { ...pem, servername: serverName };
}

/** What an environment variable says; one that is empty says nothing. */
function setting(env: NodeJS.ProcessEnv, name: string): string | undefined {
  return env[name] === "" ? undefined : env[name];
}

/** Throws a RangeError unless `value` is a whole number of at least 1. */
export function positive(name: string, value: number): number {
  if (!Number.isInteger(value) || value < 1) {
    throw new RangeError(`${name} ${value}: expected a whole number of at least 1`);
  }
  return value;
}

/** The client's own limits over the defaults. Throws a RangeError unless all are more than 0. */
export function timeoutsOf({ timeouts }: ClientOptions): Timeouts {
  const limits = { ...DEFAULT_TIMEOUTS, ...timeouts };
  for (const [name, value] of Object.entries(limits)) {
    if (!(value > 0)) {
      throw new RangeError(`timeouts.${name} ${value}: expected more than 0 milliseconds`);
    }
  }
  return limits;
}

/** Headers of every call. Throws a RangeError for a key that cannot be one; the key is not repeated. */
export function headersOf(options: ClientOptions, env: NodeJS.ProcessEnv): Headers {
  const headers = new Headers(options.headers);
  headers.set("user-agent", `trunkline-typescript/${VERSION}`);
  const key = options.apiKey ?? setting(env, "TRUNKLINE_API_KEY");
  if (key !== undefined) {
    if (!/^[\x21-\x7e]+$/.test(key)) {
      throw new RangeError("apiKey: not a header value; expected printable ASCII without spaces");
    }
    headers.set("authorization", `Bearer ${key}`);
  }
  return headers;
}
