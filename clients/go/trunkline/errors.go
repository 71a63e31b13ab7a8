package trunkline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// Violation is a field of the request that breaks the contract.
type Violation struct{ Field, Description string }

// Error is a call that failed. Every error of a call is one, also where gRPC or a proxy made it.
type Error struct {
	// Kind is the family to branch on.
	Kind Kind
	// Code is the gRPC status.
	Code codes.Code
	// Reason is a name of [trunklinev1.ErrorReason] without its prefix. Empty: the gateway did not make the error.
	Reason string
	// Message is for people.
	Message string
	// Retryable tells whether the same call is worth another try, now or after RetryAfter.
	Retryable bool
	// RetryAfter is how long to wait. 0: nobody said.
	RetryAfter time.Duration
	// RequestID is the gateway's id of the call, as Completion.Id. Empty if the call was not admitted.
	RequestID string
	// Violations are all that is wrong with the request.
	Violations []Violation
	// Detail is what is known of the attempts. Nil if the call was not admitted.
	Detail *trunklinev1.LlmErrorDetail
	// Metadata is that of ErrorInfo.
	Metadata map[string]string

	status *status.Status
}

// FromError turns the error of a gRPC call into an [*Error]. Nil and io.EOF stay what they are.
func FromError(err error) error {
	var ours *Error
	if err == nil || err == io.EOF || errors.As(err, &ours) {
		return err
	}
	// Not status.FromError: gRPC wraps what is left after its retries, and that would put its words before the gateway's.
	var carrier interface{ GRPCStatus() *status.Status }
	s := status.FromContextError(err)
	if errors.As(err, &carrier) {
		s = carrier.GRPCStatus()
	}
	e := &Error{Code: s.Code(), Message: s.Message(), status: s}
	for _, detail := range s.Details() {
		e.add(detail)
	}
	e.Kind = kindOf(e.Code, e.Reason, e.Message)
	e.Retryable = e.Detail.GetRetryable() || e.Detail == nil && (e.Code == codes.Unavailable || e.RetryAfter > 0)
	return e
}

func (e *Error) add(detail any) {
	switch d := detail.(type) {
	case *errdetails.ErrorInfo:
		// Proxies and clouds send their own, under their own domain.
		if d.GetDomain() == "trunkline" {
			e.Reason, e.Metadata = d.GetReason(), d.GetMetadata()
		}
	case *errdetails.RetryInfo:
		e.RetryAfter = d.GetRetryDelay().AsDuration()
	case *errdetails.RequestInfo:
		e.RequestID = d.GetRequestId()
	case *errdetails.BadRequest:
		for _, v := range d.GetFieldViolations() {
			e.Violations = append(e.Violations, Violation{v.GetField(), v.GetDescription()})
		}
	case *trunklinev1.LlmErrorDetail:
		e.Detail = d
	}
}

// Is finds the family, the wider one it belongs to, and context.DeadlineExceeded and context.Canceled.
func (e *Error) Is(target error) bool {
	return target == e.Kind || target == wider[e.Kind] ||
		target == context.DeadlineExceeded && e.Code == codes.DeadlineExceeded ||
		target == context.Canceled && e.Code == codes.Canceled
}

// GRPCStatus is the status as it came, with all its details.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Error tells the reason, what happened, each violation once, the delay and the id of the call.
func (e *Error) Error() string {
	name := e.Reason
	if name == "" {
		name = e.Code.String()
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %s", name, e.Message)
	for _, v := range e.Violations {
		if what := v.Field + ": " + v.Description; !strings.Contains(e.Message, what) {
			text.WriteString("; " + what)
		}
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&text, " (retry after %s)", e.RetryAfter)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&text, " [%s]", e.RequestID)
	}
	return text.String()
}

// ReasonOf is the reason of a call's error. Empty: it has none.
func ReasonOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// streamError is an error that the stream's own events show.
func streamError(kind Kind, code codes.Code, id, format string, args ...any) *Error {
	message := fmt.Sprintf(format, args...)
	return &Error{
		Kind: kind, Code: code, Message: message, RequestID: id,
		Retryable: code == codes.Unavailable, status: status.New(code, message),
	}
}
