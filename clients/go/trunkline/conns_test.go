package trunkline

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// fail makes the first calls fail so, unary and streamed, and answers all others.
func fail(times int, err error, pushback string) *gateway {
	g := &gateway{}
	trailer := metadata.MD{}
	if pushback != "" {
		trailer = metadata.Pairs("grpc-retry-pushback-ms", pushback)
	}
	g.create = func(ctx context.Context, r *trunklinev1.CreateCompletionRequest) (*trunklinev1.Completion, error) {
		if g.count() > times {
			return echo(ctx, r)
		}
		if problem := grpc.SetTrailer(ctx, trailer); problem != nil {
			return nil, problem
		}
		return nil, err
	}
	words := sayWords("You said: Say hello.")
	g.stream = func(r *trunklinev1.StreamCompletionRequest, s trunklinev1.CompletionService_StreamCompletionServer) error {
		if g.count() > times {
			return words(r, s)
		}
		s.SetTrailer(trailer)
		return err
	}
	return g
}

// bothWays runs a test over a unary call and over a stream.
func bothWays(t *testing.T, test func(*testing.T, func(context.Context, *Client) (*trunklinev1.Completion, error))) {
	t.Run("unary", func(t *testing.T) {
		t.Parallel()
		test(t, func(ctx context.Context, c *Client) (*trunklinev1.Completion, error) { return c.Complete(ctx, hello) })
	})
	t.Run("stream", func(t *testing.T) {
		t.Parallel()
		test(t, func(ctx context.Context, c *Client) (*trunklinev1.Completion, error) {
			return c.Stream(ctx, hello).Collect()
		})
	})
}

func TestUnavailableIsRepeatedAsTheGatewayAllows(t *testing.T) {
	overloaded := failure(codes.Unavailable, "GATEWAY_OVERLOADED", "too many calls")
	for _, row := range []struct {
		name     string
		err      error
		times    int
		pushback string
		calls    int
		wait     time.Duration // before the second call
		want     error
	}{
		{name: "once", err: overloaded, times: 1, calls: 2, wait: 150 * time.Millisecond},
		{name: "three times at most", err: overloaded, times: 9, calls: 3, want: ErrOverloaded},
		{name: "after the pushback", err: overloaded, times: 1, pushback: "400", calls: 2, wait: 400 * time.Millisecond},
		{name: "not if pushed back for good", err: overloaded, times: 1, pushback: "-1", calls: 1, want: ErrOverloaded},
		{name: "no other code", err: failure(codes.Internal, "LLM_EMPTY_RESPONSE", "x"), times: 1, calls: 1, want: ErrInternal},
		{name: "no deadline", err: failure(codes.DeadlineExceeded, "LLM_TIMEOUT", "x"), times: 1, calls: 1, want: ErrTimedOut},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *testing.T, call func(context.Context, *Client) (*trunklinev1.Completion, error)) {
				g := fail(row.times, row.err, row.pushback)
				completion, err := call(inTime(t), g.connect(t))
				if row.want == nil && (err != nil || TextOf(completion) != "You said: Say hello.") {
					t.Errorf("answer %v, error %v", completion, err)
				}
				if row.want != nil && !errors.Is(err, row.want) {
					t.Errorf("error is %v, want %v", err, row.want)
				}
				if g.count() != row.calls {
					t.Fatalf("%d calls, want %d", g.count(), row.calls)
				}
				if row.calls > 1 && g.calls[1].Sub(g.calls[0]) < row.wait {
					t.Errorf("waited %s, want %s", g.calls[1].Sub(g.calls[0]), row.wait)
				}
			})
		})
	}
}

func TestAfterTheRetriesTheGatewaysOwnWordsRemain(t *testing.T) {
	g := fail(9, failure(codes.Unavailable, "LLM_OVERLOADED", "the provider is overloaded"), "1")

	_, err := g.connect(t).Complete(inTime(t), hello)

	var failed *Error
	if !errors.As(err, &failed) || failed.Message != "the provider is overloaded" {
		t.Errorf("error is %v", err)
	}
	if g.count() != 3 {
		t.Errorf("%d calls", g.count())
	}
}

func TestAStreamIsNotRepeatedAfterItsFirstEvent(t *testing.T) {
	g := &gateway{stream: say(failure(codes.Unavailable, "LLM_CONNECTION", "cut"), started, attempt)}

	_, err := g.connect(t).Stream(inTime(t), hello).Collect()

	if ReasonOf(err) != "LLM_CONNECTION" || g.count() != 1 {
		t.Errorf("%d calls, error %v", g.count(), err)
	}
}

func TestARateLimitInTheMiddleIsNotRepeated(t *testing.T) {
	limited := failure(codes.ResourceExhausted, "LLM_RATE_LIMITED", "slow down", retryIn(time.Millisecond))
	g := &gateway{stream: say(limited, started, attempt)}

	_, err := g.connect(t, WithRateLimitRetries(2)).Stream(inTime(t), hello).Collect()

	if !errors.Is(err, ErrRateLimited) || g.count() != 1 {
		t.Errorf("%d calls, error %v", g.count(), err)
	}
}

func TestALargeRequestIsRepeatedToo(t *testing.T) {
	g := fail(1, failure(codes.Unavailable, "SHUTTING_DOWN", "going down"), "1")
	spec := Spec("fake/echo", User(strings.Repeat("x", 2<<20)))

	if _, err := g.connect(t).Complete(inTime(t), spec); err != nil {
		t.Error(err)
	}
}

func TestALargeAnswerArrives(t *testing.T) {
	g := &gateway{create: echo}
	spec := Spec("fake/echo", User(strings.Repeat("x", 8<<20)))

	completion, err := g.connect(t).Complete(inTime(t), spec)

	if err != nil || len(TextOf(completion)) < 8<<20 {
		t.Errorf("%d characters, error %v", len(TextOf(completion)), err)
	}
}

func TestARateLimitIsWaitedOutOnlyIfAskedFor(t *testing.T) {
	limited := failure(codes.ResourceExhausted, "LLM_RATE_LIMITED", "slow down", retryIn(50*time.Millisecond))
	for _, row := range []struct {
		name     string
		err      error
		times    int
		pushback string
		retries  int
		deadline time.Duration
		calls    int
		want     error
	}{
		{name: "not by default", err: limited, times: 1, calls: 1, want: ErrRateLimited},
		{name: "once", err: limited, times: 1, retries: 2, calls: 2},
		{name: "as often as asked for", err: limited, times: 9, retries: 2, calls: 3, want: ErrRateLimited},
		{name: "with a pushback", err: limited, times: 1, pushback: "50", retries: 2, calls: 2},
		{name: "not if pushed back for good", err: limited, times: 1, pushback: "-1", retries: 2, calls: 1, want: ErrRateLimited},
		{
			name:  "not beyond the deadline",
			err:   failure(codes.ResourceExhausted, "GATEWAY_RATE_LIMITED", "slow down", retryIn(time.Hour)),
			times: 1, retries: 2, deadline: 10 * time.Second, calls: 1, want: ErrRateLimited,
		},
		{
			name:  "not without a delay",
			err:   failure(codes.ResourceExhausted, "LLM_RATE_LIMITED", "slow down"),
			times: 1, retries: 2, calls: 1, want: ErrRateLimited,
		},
		{
			name:  "not for an empty budget",
			err:   failure(codes.ResourceExhausted, "BUDGET_EXHAUSTED", "spent", retryIn(time.Millisecond)),
			times: 1, retries: 2, calls: 1, want: ErrBudgetExhausted,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			bothWays(t, func(t *testing.T, call func(context.Context, *Client) (*trunklinev1.Completion, error)) {
				g := fail(row.times, row.err, row.pushback)
				ctx := inTime(t)
				if row.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, row.deadline)
					defer cancel()
				}
				begun := time.Now()
				completion, err := call(ctx, g.connect(t, WithRateLimitRetries(row.retries)))
				if row.want == nil && (err != nil || TextOf(completion) != "You said: Say hello.") {
					t.Errorf("answer %v, error %v", completion, err)
				}
				if row.want != nil && !errors.Is(err, row.want) {
					t.Errorf("error is %v, want %v", err, row.want)
				}
				if g.count() != row.calls {
					t.Errorf("%d calls, want %d", g.count(), row.calls)
				}
				if row.calls > 1 && g.calls[1].Sub(g.calls[0]) < 50*time.Millisecond {
					t.Errorf("waited only %s", g.calls[1].Sub(g.calls[0]))
				}
				if row.calls == 1 && time.Since(begun) > 5*time.Second {
					t.Error("waited for nothing")
				}
			})
		})
	}
}

func TestACallerWhoLeavesDoesNotWaitForTheLimit(t *testing.T) {
	g := fail(9, failure(codes.ResourceExhausted, "LLM_RATE_LIMITED", "slow down", retryIn(5*time.Minute)), "")
	refused := make(chan struct{})
	client := g.connect(t, WithRateLimitRetries(1), WithDialOptions(grpc.WithUnaryInterceptor(
		func(ctx context.Context, method string, request, response any, conn *grpc.ClientConn,
			invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
		) error {
			defer close(refused)
			return invoke(ctx, method, request, response, conn, opts...)
		})))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := client.Complete(ctx, hello)
		done <- err
	}()
	<-refused

	cancel()

	select {
	case err := <-done:
		if err == nil {
			t.Error("there was an answer")
		}
	case <-time.After(10 * time.Second):
		t.Error("the call goes on")
	}
}
