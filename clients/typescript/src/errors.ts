/** One error class per family that a program branches on, chosen by the reason that the server gives. */
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "./google/rpc/error_details_pb.js";
import type { Completion } from "./trunkline/v1/completion_pb.js";
import { type ErrorReason, type LlmErrorDetail, LlmErrorDetailSchema } from "./trunkline/v1/error_pb.js";

export { Code };

/** Name of an `ErrorReason`. */
export type Reason = Exclude<keyof typeof ErrorReason, "UNSPECIFIED">;

/** One thing that is wrong with a request or an answer. */
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
  metadata?: Record<string, string>;
  detail?: LlmErrorDetail | undefined;
  headers?: Headers;
  completion?: Completion;
  cause?: unknown;
}

/** A call that failed. Branch on the class or on `reason`; the message is for people. */
export class TrunklineError extends Error {
  /** gRPC status. Unknown for a ParseError: the call itself was fine. */
  readonly code: Code;
  /** `ErrorReason` without its prefix. Empty if gRPC, a proxy or this client made the error. */
  readonly reason: string;
  /** Is the same call worth another try, now or after `retryAfterMs`? */
  readonly retryable: boolean;
  /** How long to wait before another try, where the server says. */
  readonly retryAfterMs: number | undefined;
  /** The gateway's id of the call, as `Completion.id`. Empty if the call was not admitted. */
  readonly requestId: string;
  /** Everything that is wrong with the request or, in a ParseError, with the answer. */
  readonly violations: readonly Violation[];
  /** Facts about the reason, e.g. `maxInputTokens`: `ErrorInfo.metadata`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Provider, attempts, usage and the like, where known. */
  readonly detail: LlmErrorDetail | undefined;
  /** Headers and trailers that came with the status. */
  readonly headers: Headers;
  /** What had arrived of a stream before it failed; of a ParseError, the whole answer. */
  completion: Completion | undefined;

  constructor(message: string, facts: Facts) {
    super(message, { cause: facts.cause });
    this.name = new.target.name;
    this.code = facts.code;
    this.reason = facts.reason ?? "";
    this.retryable = facts.retryable ?? false;
    this.retryAfterMs = facts.retryAfterMs;
    this.requestId = facts.requestId ?? "";
    this.violations = facts.violations ?? [];
    this.metadata = facts.metadata ?? {};
    this.detail = facts.detail;
    this.headers = facts.headers ?? new Headers();
    this.completion = facts.completion;
  }
}

/** The gateway does not accept the caller's key: missing, unknown or expired. */
export class AuthenticationError extends TrunklineError {}
/** The caller's key, or the gateway's at the provider, may not use this model or method. */
export class PermissionDenied extends TrunklineError {}
/** The request is wrong, whatever the state of the system; `violations` names every field. */
export class InvalidRequest extends TrunklineError {}
/** The prompt is longer than the model's context window. */
export class ContextWindowExceeded extends InvalidRequest {}
/** The provider's filter refused the prompt. */
export class ContentFiltered extends InvalidRequest {}
/** The request has more bytes than the gateway or the provider accepts. */
export class RequestTooLarge extends InvalidRequest {}
/** The target cannot do what was asked. */
export class UnsupportedParameter extends InvalidRequest {}
/** No such model, completion or resource. */
export class NotFound extends TrunklineError {}
/** Over a rate limit, the gateway's or the provider's; `retryAfterMs` says when to come back. */
export class RateLimited extends TrunklineError {}
/** The caller's budget at the gateway is spent. */
export class BudgetExhausted extends TrunklineError {}
/** The account at the provider is out of money or quota. */
export class InsufficientCredits extends TrunklineError {}
/** The provider refuses the credential; `metadata.credentialOwner` says whose. The caller's key is fine. */
export class ProviderAuthenticationError extends TrunklineError {}
/** The state of something changed meanwhile, or an id was used twice. */
export class Conflict extends TrunklineError {}
/** The provider or the gateway failed for now; another try may work. */
export class Unavailable extends TrunklineError {}
/** The provider or the gateway has too much to do. */
export class Overloaded extends Unavailable {}
/** No gateway answers at the address, or the connection to it broke. */
export class Unreachable extends Unavailable {}
/** Time ran out: the caller's deadline (`reason` is empty), the gateway's limit or the provider's. */
export class TimedOut extends TrunklineError {}
/** The call was cancelled. */
export class Cancelled extends TrunklineError {}
/** This server does not know the method. */
export class Unimplemented extends TrunklineError {}
/** A bug of the gateway, or an answer of the provider that cannot be read. */
export class InternalError extends TrunklineError {}
/** The stream ended without `finished`; `completion` holds what arrived. Never take it for an answer. */
export class StreamIncomplete extends TrunklineError {}
/** The stream broke the rules of the contract; `completion` holds what arrived before. */
export class StreamRuleBroken extends TrunklineError {}
/** The answer does not fit the type asked for; `violations` says where, and `completion` holds it. */
export class ParseError extends TrunklineError {
  declare completion: Completion;
}

type ErrorClass = new (message: string, facts: Facts) => TrunklineError;

/** Family of each reason. The compiler holds it complete. */
export const FAMILIES: Readonly<Record<Reason, ErrorClass>> = {
  CALLER_UNAUTHENTICATED: AuthenticationError,
  CALLER_PERMISSION_DENIED: PermissionDenied,
  INVALID_REQUEST: InvalidRequest,
  UNSUPPORTED_PARAMETER: UnsupportedParameter,
  MODEL_NOT_FOUND: NotFound,
  GATEWAY_RATE_LIMITED: RateLimited,
  GATEWAY_OVERLOADED: Overloaded,
  STORE_UNAVAILABLE: Unavailable,
  COMPLETION_LOST: Unavailable,
  READER_STALLED: TimedOut,
  BUDGET_EXHAUSTED: BudgetExhausted,
  REQUEST_TOO_LARGE: RequestTooLarge,
  REQUEST_ID_REUSED: Conflict,
  RESUME_EXPIRED: NotFound,
  INTERNAL: InternalError,
  SHUTTING_DOWN: Unavailable,
  GATEWAY_TIMEOUT: TimedOut,
  CONFIG_CONFLICT: Conflict,
  ALREADY_EXISTS: Conflict,
  CONFIG_IN_USE: Conflict,
  NOT_FOUND: NotFound,
  CANCELLED: Cancelled,
  LLM_CONNECTION: Unavailable,
  LLM_TIMEOUT: TimedOut,
  LLM_RATE_LIMITED: RateLimited,
  LLM_BAD_REQUEST: InvalidRequest,
  LLM_CONTEXT_WINDOW_EXCEEDED: ContextWindowExceeded,
  LLM_AUTHENTICATION: ProviderAuthenticationError,
  LLM_PERMISSION_DENIED: PermissionDenied,
  LLM_NOT_FOUND: NotFound,
  LLM_UNPROCESSABLE: InvalidRequest,
  LLM_SERVER_ERROR: Unavailable,
  LLM_OVERLOADED: Overloaded,
  LLM_INSUFFICIENT_CREDITS: InsufficientCredits,
  LLM_CONTENT_FILTERED: ContentFiltered,
  LLM_EMPTY_RESPONSE: InternalError,
  LLM_INVALID_RESPONSE: InternalError,
  LLM_REQUEST_TOO_LARGE: RequestTooLarge,
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
  [Code.FailedPrecondition]: TrunklineError,
  [Code.Aborted]: Conflict,
  [Code.OutOfRange]: InvalidRequest,
  [Code.Unimplemented]: Unimplemented,
  [Code.Internal]: InternalError,
  [Code.Unavailable]: Unavailable,
  [Code.DataLoss]: InternalError,
  [Code.Unauthenticated]: AuthenticationError,
};

/** gRPC itself says RESOURCE_EXHAUSTED of sizes too, and no waiting makes a message smaller. */
const BY_TEXT: readonly (readonly [RegExp, ErrorClass])[] = [
  [/larger than configured readMaxBytes|^CLIENT: .*larger than max|metadata size exceeds/, InternalError],
  [/message larger than max/, RequestTooLarge],
  [/Concurrent RPC limit exceeded/, Overloaded],
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

const LOST_CONNECTION = /^(ERR_HTTP2_(?!STREAM_ERROR)|ERR_STREAM_|ERR_SSL_|ERR_TLS_|E[A-Z]+$)/;
const LOST_STREAM = /closed with error code (NGHTTP2_)?(CANCEL|REFUSED_STREAM)\b/;

/** connect-node reports a lost connection as CANCELLED, ABORTED or INTERNAL; gRPC's word for it is UNAVAILABLE. */
function connectionBroke(error: ConnectError): Unreachable | undefined {
  const { code } = (error.cause ?? {}) as NodeJS.ErrnoException;
  const lost = (typeof code === "string" && LOST_CONNECTION.test(code)) || LOST_STREAM.test(error.rawMessage);
  if (error.metadata.has("grpc-status") || !lost) {
    return undefined;
  }
  const message = error.code === Code.Unavailable ? error.rawMessage : `the connection broke: ${error.rawMessage}`;
  return new Unreachable(message, { code: Code.Unavailable, retryable: true, cause: error });
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
    metadata: info?.metadata ?? {},
    detail,
    headers: error.metadata,
    cause: error,
  });
}

function family(reason: string, error: ConnectError): ErrorClass {
  if (Object.hasOwn(FAMILIES, reason)) {
    return FAMILIES[reason as Reason];
  }
  if (error.code === Code.Unavailable && reason === "") {
    return Unreachable;
  }
  const byText = error.code === Code.ResourceExhausted && BY_TEXT.find(([text]) => text.test(error.rawMessage));
  return byText ? byText[1] : BY_CODE[error.code];
}
