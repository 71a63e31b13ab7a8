package trunkline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// failed is the error of a call that the gateway lets fail so.
func failed(t *testing.T, err error) *Error {
	t.Helper()
	g := &gateway{create: func(context.Context, *trunklinev1.CreateCompletionRequest) (*trunklinev1.Completion, error) {
		return nil, err
	}}
	_, err = g.connect(t).Complete(inTime(t), hello)
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %v", err)
	}
	return e
}

func TestARateLimitCarriesTheReasonAndTheDelay(t *testing.T) {
	detail := &trunklinev1.LlmErrorDetail{
		CompletionId: "cmpl_7", Provider: "openai", UpstreamStatus: proto.Int32(429), Retryable: true,
		Attempts: []*trunklinev1.AttemptSummary{{Attempt: 1, Reason: "LLM_RATE_LIMITED"}},
	}

	e := failed(t, failure(codes.ResourceExhausted, "LLM_RATE_LIMITED", "slow down", retryIn(1500*time.Millisecond),
		&errdetails.RequestInfo{RequestId: "cmpl_7"}, protoadapt.MessageV1Of(detail)))

	if e.Kind != ErrRateLimited || e.Code != codes.ResourceExhausted || e.Reason != "LLM_RATE_LIMITED" ||
		e.Message != "slow down" || e.RetryAfter != 1500*time.Millisecond || !e.Retryable || e.RequestID != "cmpl_7" ||
		e.Metadata["provider"] != "fake" || !proto.Equal(e.Detail, detail) {
		t.Errorf("error is %+v", e)
	}
	if want := "LLM_RATE_LIMITED: slow down (retry after 1.5s) [cmpl_7]"; e.Error() != want {
		t.Errorf("it says %q, want %q", e, want)
	}
}

func TestAWrongRequestNamesEveryField(t *testing.T) {
	e := failed(t, failure(codes.InvalidArgument, "INVALID_REQUEST", "spec.messages: at least one is needed (and 1 more)",
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "spec.messages", Description: "at least one is needed"},
			{Field: "spec.params.top_p", Description: "2 is more than 1"},
		}}))

	want := []Violation{{"spec.messages", "at least one is needed"}, {"spec.params.top_p", "2 is more than 1"}}
	if fmt.Sprint(e.Violations) != fmt.Sprint(want) {
		t.Errorf("violations are %v", e.Violations)
	}
	if want := "INVALID_REQUEST: spec.messages: at least one is needed (and 1 more); spec.params.top_p: 2 is more than 1"; e.Error() != want {
		t.Errorf("it says %q", e)
	}
}

func TestEveryReasonHasItsFamily(t *testing.T) {
	for number, name := range trunklinev1.ErrorReason_name {
		reason := strings.TrimPrefix(name, "ERROR_REASON_")
		if _, ok := kindOfReason[reason]; ok == (number == 0) {
			t.Errorf("%s: in the table: %t", reason, ok)
		}
	}
	if len(kindOfReason) != len(trunklinev1.ErrorReason_name)-1 {
		t.Errorf("the table has %d rows", len(kindOfReason))
	}
}

func TestErrorsAreFoundByTheirFamilyAndTheWiderOne(t *testing.T) {
	for _, row := range []struct {
		code   codes.Code
		reason string
		is     []error
	}{
		{codes.Unauthenticated, "CALLER_UNAUTHENTICATED", []error{ErrAuthentication}},
		{codes.FailedPrecondition, "LLM_AUTHENTICATION", []error{ErrProviderAuthentication}},
		{codes.PermissionDenied, "LLM_PERMISSION_DENIED", []error{ErrPermissionDenied}},
		{codes.InvalidArgument, "INVALID_REQUEST", []error{ErrInvalidRequest}},
		{codes.InvalidArgument, "LLM_CONTEXT_WINDOW_EXCEEDED", []error{ErrContextWindowExceeded, ErrInvalidRequest}},
		{codes.InvalidArgument, "LLM_CONTENT_FILTERED", []error{ErrContentFiltered, ErrInvalidRequest}},
		{codes.InvalidArgument, "LLM_REQUEST_TOO_LARGE", []error{ErrRequestTooLarge, ErrInvalidRequest}},
		{codes.InvalidArgument, "UNSUPPORTED_PARAMETER", []error{ErrUnsupportedParameter, ErrInvalidRequest}},
		{codes.NotFound, "MODEL_NOT_FOUND", []error{ErrNotFound}},
		{codes.ResourceExhausted, "GATEWAY_RATE_LIMITED", []error{ErrRateLimited}},
		{codes.ResourceExhausted, "BUDGET_EXHAUSTED", []error{ErrBudgetExhausted}},
		{codes.FailedPrecondition, "LLM_INSUFFICIENT_CREDITS", []error{ErrInsufficientCredits}},
		{codes.Aborted, "LLM_CONFLICT", []error{ErrConflict}},
		{codes.DeadlineExceeded, "LLM_TIMEOUT", []error{ErrTimedOut, context.DeadlineExceeded}},
		{codes.Canceled, "CANCELLED", []error{ErrCancelled, context.Canceled}},
		{codes.Internal, "INTERNAL", []error{ErrInternal}},
		// Reasons of a newer gateway go by their code.
		{codes.Unavailable, "NEW_REASON", []error{ErrUnavailable}},
		{codes.ResourceExhausted, "NEW_REASON", []error{ErrRateLimited}},
		{codes.DataLoss, "NEW_REASON", []error{ErrInternal}},
	} {
		t.Run(row.reason, func(t *testing.T) {
			t.Parallel()
			err := failure(row.code, row.reason, "it failed")
			if row.code == codes.Unavailable {
				err = FromError(err) // without the retries
			} else {
				err = failed(t, err)
			}
			if ReasonOf(err) != row.reason || status.Code(err) != row.code {
				t.Errorf("reason %s, code %s", ReasonOf(err), status.Code(err))
			}
			if kind := err.(*Error).Kind; kind != row.is[0] {
				t.Errorf("kind is %q", kind)
			}
			for _, kind := range row.is {
				if !errors.Is(err, kind) {
					t.Errorf("%v is not %q", err, kind)
				}
			}
			for _, other := range []error{ErrStreamIncomplete, ErrUnimplemented, io.EOF} {
				if errors.Is(err, other) {
					t.Errorf("%v is %q", err, other)
				}
			}
		})
	}
	for _, reason := range []string{"GATEWAY_OVERLOADED", "LLM_OVERLOADED"} {
		err := FromError(failure(codes.Unavailable, reason, "busy"))
		if !errors.Is(err, ErrOverloaded) || !errors.Is(err, ErrUnavailable) {
			t.Errorf("%v is not overloaded", err)
		}
	}
}

func TestErrorsThatGRPCOrAProxyMadeAreTypedToo(t *testing.T) {
	for _, row := range []struct {
		code      codes.Code
		message   string
		kind      Kind
		retryable bool
	}{
		{codes.ResourceExhausted, "SERVER: Received message larger than max (9 vs. 4)", ErrRequestTooLarge, false},
		{codes.ResourceExhausted, "grpc: received message larger than max (9 vs. 4)", ErrInternal, false},
		{codes.ResourceExhausted, "received metadata size exceeds soft limit (9 vs. 4)", ErrInternal, false},
		{codes.ResourceExhausted, "Concurrent RPC limit exceeded!", ErrOverloaded, false},
		{codes.ResourceExhausted, "upstream max stream duration", ErrRateLimited, false},
		{codes.Unavailable, "Cancelling all calls", ErrUnreachable, true},
		{codes.DeadlineExceeded, "Deadline Exceeded", ErrTimedOut, false},
		{codes.Canceled, "Cancelled", ErrCancelled, false},
		{codes.Unknown, "Unexpected", ErrInternal, false},
		{codes.Unimplemented, "Method not found!", ErrUnimplemented, false},
		{codes.Unauthenticated, "no token", ErrAuthentication, false},
		{codes.FailedPrecondition, "not now", ErrConflict, false},
	} {
		var e *Error
		if !errors.As(FromError(status.Error(row.code, row.message)), &e) {
			t.Fatal("not typed")
		}
		if e.Kind != row.kind || e.Retryable != row.retryable || e.Reason != "" || e.RequestID != "" || e.Detail != nil {
			t.Errorf("%s: %+v", row.message, e)
		}
		if want := row.code.String() + ": " + row.message; e.Error() != want {
			t.Errorf("it says %q, want %q", e, want)
		}
	}
}

func TestTheGatewaySaysWhatIsWorthAnotherTry(t *testing.T) {
	for _, retryable := range []bool{true, false} {
		for _, code := range []codes.Code{codes.Unavailable, codes.Internal} {
			detail := protoadapt.MessageV1Of(&trunklinev1.LlmErrorDetail{Retryable: retryable})
			var e *Error
			if !errors.As(FromError(failure(code, "LLM_CONNECTION", "cut", detail)), &e) || e.Retryable != retryable {
				t.Errorf("%s: retryable is %t, want %t", code, e.Retryable, retryable)
			}
		}
	}
	// Before admission there is no detail.
	var e *Error
	limited := failure(codes.ResourceExhausted, "GATEWAY_RATE_LIMITED", "slow down", retryIn(time.Second))
	if !errors.As(FromError(limited), &e) || !e.Retryable {
		t.Errorf("%v is not retryable", e)
	}
}

func TestTheReasonOfAnotherDomainIsNotOurs(t *testing.T) {
	s, err := status.New(codes.PermissionDenied, "no").
		WithDetails(&errdetails.ErrorInfo{Reason: "INTERNAL", Domain: "googleapis.com"})
	if err != nil {
		t.Fatal(err)
	}

	e := failed(t, s.Err())

	if e.Reason != "" || e.Kind != ErrPermissionDenied {
		t.Errorf("error is %+v", e)
	}
}

func TestAnUnreachableGatewayIsTold(t *testing.T) {
	_, err := newClient(t, WithAddress("127.0.0.1:1")).Complete(inTime(t), hello)

	if !errors.Is(err, ErrUnreachable) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("error is %v", err)
	}
}

func TestTheDeadlineAndTheCallersCancelAreTold(t *testing.T) {
	g := &gateway{create: func(ctx context.Context, _ *trunklinev1.CreateCompletionRequest) (*trunklinev1.Completion, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	client := g.connect(t)

	brief, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.Complete(brief, hello); !errors.Is(err, ErrTimedOut) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
	left, leave := context.WithCancel(context.Background())
	leave()
	if _, err := client.Complete(left, hello); !errors.Is(err, ErrCancelled) || !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestOtherErrorsStayWhatTheyAre(t *testing.T) {
	if FromError(nil) != nil || FromError(io.EOF) != io.EOF {
		t.Error("nil or io.EOF became an error")
	}
	once := FromError(status.Error(codes.NotFound, "gone"))
	if wrapped := fmt.Errorf("while asking: %w", once); FromError(wrapped) != wrapped {
		t.Error("a typed error was typed again")
	}
	if ReasonOf(errors.New("other")) != "" {
		t.Error("a foreign error has a reason")
	}
}
