package trunkline

import (
	"strings"

	"google.golang.org/grpc/codes"
)

// Kind is a family of errors to branch on: errors.Is(err, trunkline.ErrRateLimited). What exactly happened is
// [Error.Reason].
type Kind string

// The families. Some belong to a wider one, which errors.Is also finds.
const (
	// The caller's own key is missing, unknown or expired.
	ErrAuthentication = Kind("authentication failed")
	// The provider refuses the credential behind the gateway, not the caller's key.
	ErrProviderAuthentication = Kind("provider refuses the credential")
	// The key, the caller's or the gateway's, may not use this model or method.
	ErrPermissionDenied = Kind("permission denied")
	// The request is wrong whatever the state of the system; Violations name every field.
	ErrInvalidRequest = Kind("invalid request")
	// The prompt is longer than the model's context window. An ErrInvalidRequest.
	ErrContextWindowExceeded = Kind("context window exceeded")
	// The provider's filter refused the prompt. An ErrInvalidRequest.
	ErrContentFiltered = Kind("content filtered")
	// The request has more bytes than the gateway or the provider accepts. An ErrInvalidRequest.
	ErrRequestTooLarge = Kind("request too large")
	// The target cannot do what was asked. An ErrInvalidRequest.
	ErrUnsupportedParameter = Kind("unsupported parameter")
	// No such model, completion or resource.
	ErrNotFound = Kind("not found")
	// Slow down; RetryAfter says how long.
	ErrRateLimited = Kind("rate limited")
	// The caller's budget at the gateway is spent.
	ErrBudgetExhausted = Kind("budget exhausted")
	// The account at the provider is out of money or quota.
	ErrInsufficientCredits = Kind("insufficient credits")
	// The state of something changed meanwhile, or an id was used twice.
	ErrConflict = Kind("conflict")
	// The provider or the gateway failed for now; another try may work.
	ErrUnavailable = Kind("unavailable")
	// The provider or the gateway has too much to do. An ErrUnavailable.
	ErrOverloaded = Kind("overloaded")
	// No gateway answers at the address, or the connection to it broke. An ErrUnavailable.
	ErrUnreachable = Kind("unreachable")
	// The time for the call ran out.
	ErrTimedOut = Kind("timed out")
	// The call was cancelled.
	ErrCancelled = Kind("cancelled")
	// This server does not know the method.
	ErrUnimplemented = Kind("unimplemented")
	// A bug of the gateway, or an answer that cannot be read.
	ErrInternal = Kind("internal error")
	// The stream ended without CompletionFinished: never take what arrived for an answer.
	ErrStreamIncomplete = Kind("stream incomplete")
	// An event came that the contract does not allow there.
	ErrStreamRuleBroken = Kind("stream rule broken")
)

// Error is the name of the family.
func (k Kind) Error() string { return string(k) }

var wider = map[Kind]Kind{
	ErrContextWindowExceeded: ErrInvalidRequest,
	ErrContentFiltered:       ErrInvalidRequest,
	ErrRequestTooLarge:       ErrInvalidRequest,
	ErrUnsupportedParameter:  ErrInvalidRequest,
	ErrOverloaded:            ErrUnavailable,
	ErrUnreachable:           ErrUnavailable,
}

var kindOfReason = map[string]Kind{
	"CALLER_UNAUTHENTICATED":      ErrAuthentication,
	"CALLER_PERMISSION_DENIED":    ErrPermissionDenied,
	"INVALID_REQUEST":             ErrInvalidRequest,
	"UNSUPPORTED_PARAMETER":       ErrUnsupportedParameter,
	"MODEL_NOT_FOUND":             ErrNotFound,
	"GATEWAY_RATE_LIMITED":        ErrRateLimited,
	"GATEWAY_OVERLOADED":          ErrOverloaded,
	"STORE_UNAVAILABLE":           ErrUnavailable,
	"COMPLETION_LOST":             ErrUnavailable,
	"READER_STALLED":              ErrTimedOut,
	"BUDGET_EXHAUSTED":            ErrBudgetExhausted,
	"REQUEST_TOO_LARGE":           ErrRequestTooLarge,
	"REQUEST_ID_REUSED":           ErrConflict,
	"RESUME_EXPIRED":              ErrNotFound,
	"INTERNAL":                    ErrInternal,
	"SHUTTING_DOWN":               ErrUnavailable,
	"GATEWAY_TIMEOUT":             ErrTimedOut,
	"CONFIG_CONFLICT":             ErrConflict,
	"ALREADY_EXISTS":              ErrConflict,
	"CONFIG_IN_USE":               ErrConflict,
	"NOT_FOUND":                   ErrNotFound,
	"CANCELLED":                   ErrCancelled,
	"LLM_CONNECTION":              ErrUnavailable,
	"LLM_TIMEOUT":                 ErrTimedOut,
	"LLM_RATE_LIMITED":            ErrRateLimited,
	"LLM_BAD_REQUEST":             ErrInvalidRequest,
	"LLM_CONTEXT_WINDOW_EXCEEDED": ErrContextWindowExceeded,
	"LLM_AUTHENTICATION":          ErrProviderAuthentication,
	"LLM_PERMISSION_DENIED":       ErrPermissionDenied,
	"LLM_NOT_FOUND":               ErrNotFound,
	"LLM_UNPROCESSABLE":           ErrInvalidRequest,
	"LLM_SERVER_ERROR":            ErrUnavailable,
	"LLM_OVERLOADED":              ErrOverloaded,
	"LLM_INSUFFICIENT_CREDITS":    ErrInsufficientCredits,
	"LLM_CONTENT_FILTERED":        ErrContentFiltered,
	"LLM_EMPTY_RESPONSE":          ErrInternal,
	"LLM_INVALID_RESPONSE":        ErrInternal,
	"LLM_REQUEST_TOO_LARGE":       ErrRequestTooLarge,
	"LLM_CONFLICT":                ErrConflict,
	"LLM_UNKNOWN":                 ErrInternal,
}

// For reasons newer than this client, and for errors that gRPC or a proxy made. What is missing is ErrInternal.
var kindOfCode = map[codes.Code]Kind{
	codes.Canceled:           ErrCancelled,
	codes.InvalidArgument:    ErrInvalidRequest,
	codes.OutOfRange:         ErrInvalidRequest,
	codes.DeadlineExceeded:   ErrTimedOut,
	codes.NotFound:           ErrNotFound,
	codes.AlreadyExists:      ErrConflict,
	codes.FailedPrecondition: ErrConflict,
	codes.Aborted:            ErrConflict,
	codes.PermissionDenied:   ErrPermissionDenied,
	codes.Unauthenticated:    ErrAuthentication,
	codes.ResourceExhausted:  ErrRateLimited,
	codes.Unavailable:        ErrUnavailable,
	codes.Unimplemented:      ErrUnimplemented,
}

// gRPC itself says RESOURCE_EXHAUSTED where no waiting helps. The first text that occurs in the message decides.
var kindOfExhaustion = []struct {
	text string
	kind Kind
}{
	{"grpc: received message larger than max", ErrInternal}, // the answer, at this client
	{"message larger than max", ErrRequestTooLarge},
	{"metadata size exceeds", ErrInternal},
	{"Concurrent RPC limit exceeded", ErrOverloaded},
}

func kindOf(code codes.Code, reason, message string) Kind {
	if kind, ok := kindOfReason[reason]; ok {
		return kind
	}
	if reason == "" && code == codes.Unavailable {
		return ErrUnreachable
	}
	if reason == "" && code == codes.ResourceExhausted {
		for _, row := range kindOfExhaustion {
			if strings.Contains(message, row.text) {
				return row.kind
			}
		}
	}
	if kind, ok := kindOfCode[code]; ok {
		return kind
	}
	return ErrInternal
}
