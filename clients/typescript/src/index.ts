/** trunkline's TypeScript client. The messages themselves are in `@trunkline/client/v1`. */
export { Channel } from "./channel.js";
export { Client, connect } from "./client.js";
export type { CallSettings, ParseSettings, Prompt, StreamSettings } from "./client.js";
export { Collector } from "./collector.js";
export {
  AuthenticationError,
  BudgetExhausted,
  Cancelled,
  Code,
  Conflict,
  ContentFiltered,
  ContextWindowExceeded,
  InsufficientCredits,
  InternalError,
  InvalidRequest,
  NotFound,
  Overloaded,
  ParseError,
  PermissionDenied,
  ProviderAuthenticationError,
  RateLimited,
  RequestTooLarge,
  StreamIncomplete,
  StreamRuleBroken,
  TimedOut,
  TrunklineError,
  Unavailable,
  Unimplemented,
  Unreachable,
  UnsupportedParameter,
} from "./errors.js";
export type { Reason, Violation } from "./errors.js";
export * from "./messages.js";
export type { ClientOptions, Timeouts, TlsOptions } from "./options.js";
export type { Parsed } from "./parse.js";
export type { Schema } from "./schema.js";
export { CompletionStream } from "./stream.js";
export { VERSION } from "./version.js";
export { FinishReason, Role } from "./v1.js";
