/** trunkline's TypeScript client. The messages themselves are in `@trunkline/client/v1`. */
export { Channel } from "./channel.js";
export { Client, connect } from "./client.js";
export type { CallSettings, ParseSettings, Prompt, StreamSettings } from "./client.js";
export { Collector } from "./collector.js";
export {
  AuthenticationError,
  Cancelled,
  Code,
  Conflict,
  ContentFiltered,
  ContextWindowExceeded,
  InternalError,
  InvalidRequest,
  NotFound,
  Overloaded,
  PermissionDenied,
  QuotaExhausted,
  RateLimited,
  StreamIncomplete,
  StreamViolation,
  TimedOut,
  TrunklineError,
  Unavailable,
  UpstreamAuthenticationError,
} from "./errors.js";
export type { Reason, Violation } from "./errors.js";
export * from "./messages.js";
export type { ClientOptions, Timeouts, TlsOptions } from "./options.js";
export { ParseError } from "./parse.js";
export type { Parsed } from "./parse.js";
export type { Schema } from "./schema.js";
export { CompletionStream } from "./stream.js";
export { VERSION } from "./version.js";
export { FinishReason, Role } from "./v1.js";
