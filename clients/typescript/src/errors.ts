/** One error class per family that a program branches on, chosen by the reason that the server gives. */
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "./google/rpc/error_details_pb.js";
import { type ErrorReason, type LlmErrorDetail, LlmErrorDetailSchema } from "./trunkline/v1/error_pb.js";

export { Code };

/** Name of an `ErrorReason`. */
export type Reason = Exclude<keyof typeof ErrorReason, "UNSPECIFIED">;

/** A field of the request that breaks the contract. */
export interface Violation {
  field: string;
  description: string;
}

interface Facts {
  code: Code;
  reason?: string;
  retryable?: boolean;
  retryAfterMs?: number | undefined;
  requestId?: string;
  violations?: Violation[];
  info?: Record<string, string>;
  detail?: LlmErrorDetail | undefined;
  metadata?: Headers;
  cause?: unknown;
}

/** A call that failed. The subclasses are the families; `reason` tells the members of a family apart. */
export class TrunklineError extends Error {
  /** gRPC status code. */
  readonly code: Code;
  /** `ErrorReason` without its prefix. Empty if gRPC, a proxy or this client made the error. */
  readonly reason: string;
  /** Is the same call worth another try, now or after `retryAfterMs`? */
  readonly retryable: boolean;
  /** How long to wait before another try, where the server says. */
  readonly retryAfterMs: number | undefined;
  /** The gateway's id of the call, as `Completion.id`. Empty if the call was not admitted. */
  readonly requestId: string;
  /** Every field that breaks the contract. */
  readonly violations: readonly Violation[];
  /** Facts about the reason, e.g. `maxInputTokens`. */
  readonly info: Readonly<Record<string, string>>;
  /** Provider, attempts, usage and the like, where known. */
  readonly detail: LlmErrorDetail | undefined;
  /** Headers or trailers that came with the error. */
  readonly metadata: Headers;

  constructor(message: string, facts: Facts) {
    super(message, { cause: facts.cause });
    this.name = new.target.name;
    this.code = facts.code;
    this.reason = facts.reason ?? "";
    this.retryable = facts.retryable ?? false;
    this.retryAfterMs = facts.retryAfterMs;
    this.requestId = facts.requestId ?? "";
    this.violations = facts.violations ?? [];
    this.info = facts.info ?? {};
    this.detail = facts.detail;
    this.metadata = facts.metadata ?? new Headers();
  }
}

/** The request is wrong, whatever the state of the world; `violations` says where. */
export class InvalidRequest extends TrunklineError {}
/** The prompt is longer than the model's context window. */
export class ContextWindowExceeded extends InvalidRequest {}
/** The provider's filter refused the prompt. */
export class ContentFiltered extends InvalidRequest {}
/** Too many calls, at the gateway or at the provider; `retryAfterMs` says when to come back. */
export class RateLimited extends TrunklineError {}
/** A budget, or the account at the provider, is used up: waiting a little does not help. */
export class QuotaExhausted extends TrunklineError {}
/** Another try may work: the provider, the gateway or the connection failed. */
export class Unavailable extends TrunklineError {}
/** Too much to do at the gateway or at the provider. */
export class Overloaded extends Unavailable {}
/** The gateway does not know the caller's key. */
export class AuthenticationError extends TrunklineError {}
/** The provider does not accept the credential that the gateway (or the caller, `info.credentialOwner`) gave it. */
export class UpstreamAuthenticationError extends TrunklineError {}
/** The key is known and may not do this. */
export class PermissionDenied extends TrunklineError {}
/** No such model, config or completion. */
export class NotFound extends TrunklineError {}
/** Time ran out: the caller's deadline (empty `reason`), the gateway's limit or the provider's. */
export class TimedOut extends TrunklineError {}
/** The call was cancelled by its caller. */
export class Cancelled extends TrunklineError {}
/** The state of something stands against the call: a reused id, another version, a stream no longer kept. */
export class Conflict extends TrunklineError {}
/** Someone must fix something: the gateway has a bug or the provider sent nonsense. */
export class InternalError extends TrunklineError {}
/** The stream broke the rules of its order. */
export class StreamViolation extends InternalError {}
/** The stream ended without `finished`: what came is not the whole answer. */
export class StreamIncomplete extends Unavailable {}

type ErrorClass = new (message: string, facts: Facts) => TrunklineError;

/** Family of each reason. The compiler holds it complete. */
export const FAMILIES: Readonly<Record<Reason, ErrorClass>> = {
  CALLER_UNAUTHENTICATED: AuthenticationError,
  CALLER_PERMISSION_DENIED: PermissionDenied,
  INVALID_REQUEST: InvalidRequest,
  UNSUPPORTED_PARAMETER: InvalidRequest,
  MODEL_NOT_FOUND: NotFound,
  GATEWAY_RATE_LIMITED: RateLimited,
  GATEWAY_OVERLOADED: Overloaded,
  BUDGET_EXHAUSTED: QuotaExhausted,
  REQUEST_TOO_LARGE: InvalidRequest,
  REQUEST_ID_REUSED: Conflict,
  RESUME_EXPIRED: Conflict,
  INTERNAL: InternalError,
  SHUTTING_DOWN: Unavailable,
  GATEWAY_TIMEOUT: TimedOut,
  CONFIG_CONFLICT: Conflict,
  NOT_FOUND: NotFound,
  CANCELLED: Cancelled,
  LLM_CONNECTION: Unavailable,
  LLM_TIMEOUT: TimedOut,
  LLM_RATE_LIMITED: RateLimited,
  LLM_BAD_REQUEST: InvalidRequest,
  LLM_CONTEXT_WINDOW_EXCEEDED: ContextWindowExceeded,
  LLM_AUTHENTICATION: UpstreamAuthenticationError,
  LLM_PERMISSION_DENIED: PermissionDenied,
  LLM_NOT_FOUND: NotFound,
  LLM_UNPROCESSABLE: InvalidRequest,
  LLM_SERVER_ERROR: Unavailable,
  LLM_OVERLOADED: Overloaded,
  LLM_INSUFFICIENT_CREDITS: QuotaExhausted,
  LLM_CONTENT_FILTERED: ContentFiltered,
  LLM_EMPTY_RESPONSE: InternalError,
  LLM_INVALID_RESPONSE: InternalError,
  LLM_REQUEST_TOO_LARGE: InvalidRequest,
  LLM_CONFLICT: Conflict,
  LLM_UNKNOWN: InternalError,
};

/** Family of an error without a reason that is known here: gRPC, a proxy or a newer server made it. */
const BY_CODE: Readonly<Record<Code, ErrorClass>> = {
  [Code.Canceled]: Cancelled,
  [Code.Unknown]: InternalError,
  [Code.InvalidArgument]: InvalidRequest,
  [Code.DeadlineExceeded]: TimedOut,
  [Code.NotFound]: NotFound,
  [Code.AlreadyExists]: Conflict,
  [Code.PermissionDenied]: PermissionDenied,
  [Code.ResourceExhausted]: RateLimited,
  [Code.FailedPrecondition]: Conflict,
  [Code.Aborted]: Conflict,
  [Code.OutOfRange]: InvalidRequest,
  [Code.Unimplemented]: InvalidRequest,
  [Code.Internal]: InternalError,
  [Code.Unavailable]: Unavailable,
  [Code.DataLoss]: InternalError,
  [Code.Unauthenticated]: AuthenticationError,
};

/** gRPC says RESOURCE_EXHAUSTED of sizes too, and no waiting makes a message smaller. */
const SIZES: readonly (readonly [RegExp, ErrorClass])[] = [
  [/larger than/, InvalidRequest],
  [/metadata size exceeds/, InternalError],
];

/** Any failure of a call as one of ours. `signal` is the caller's own. */
export function toTrunklineError(error: unknown, signal?: AbortSignal): TrunklineError {
  if (error instanceof TrunklineError) {
    return error;
  }
  if (signal?.aborted === true) {
    return abandoned(signal);
  }
  const failure = ConnectError.from(error);
  return connectionBroke(failure) ?? fromStatus(failure);
}

function abandoned(signal: AbortSignal): TrunklineError {
  const cause: unknown = signal.reason;
  return cause instanceof Error && cause.name === "TimeoutError"
    ? new TimedOut("the caller's signal timed out", { code: Code.DeadlineExceeded, cause })
    : new Cancelled("the caller cancelled the call", { code: Code.Canceled, cause });
}

const LOST_CONNECTION = /^(ERR_HTTP2_(?!STREAM_ERROR)|ERR_STREAM_|E[A-Z]+$)/;
const LOST_STREAM = /closed with error code (NGHTTP2_)?(CANCEL|REFUSED_STREAM)\b/;

/** connect-node reports a lost connection as CANCELLED, ABORTED or INTERNAL; gRPC's word for it is UNAVAILABLE. */
function connectionBroke(error: ConnectError): Unavailable | undefined {
  const { code } = (error.cause ?? {}) as NodeJS.ErrnoException;
  const lost = (typeof code === "string" && LOST_CONNECTION.test(code)) || LOST_STREAM.test(error.rawMessage);
  if (error.metadata.has("grpc-status") || !lost) {
    return undefined;
  }
  const message = error.code === Code.Unavailable ? error.rawMessage : `the connection broke: ${error.rawMessage}`;
  return new Unavailable(message, { code: Code.Unavailable, retryable: true, cause: error });
}

function fromStatus(error: ConnectError): TrunklineError {
  const info = error.findDetails(ErrorInfoSchema).find(({ domain }) => domain === "trunkline");
  const detail = error.findDetails(LlmErrorDetailSchema)[0];
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const Family = family(info?.reason ?? "", error);
  return new Family(error.rawMessage, {
    code: error.code,
    reason: info?.reason ?? "",
    retryable: detail?.retryable ?? (error.code === Code.Unavailable || delay !== undefined),
    retryAfterMs: delay === undefined ? undefined : Number(delay.seconds) * 1000 + delay.nanos / 1e6,
    requestId: error.findDetails(RequestInfoSchema)[0]?.requestId ?? "",
    violations: error
      .findDetails(BadRequestSchema)
      .flatMap((bad) => bad.fieldViolations.map(({ field, description }) => ({ field, description }))),
    info: info?.metadata ?? {},
    detail,
    metadata: error.metadata,
    cause: error,
  });
}

function family(reason: string, error: ConnectError): ErrorClass {
  if (Object.hasOwn(FAMILIES, reason)) {
    return FAMILIES[reason as Reason];
  }
  const bySize = error.code === Code.ResourceExhausted && SIZES.find(([text]) => text.test(error.rawMessage));
  return bySize ? bySize[1] : BY_CODE[error.code];
}
