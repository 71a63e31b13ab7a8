package trunkline

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

const (
	// A stream is given up that was resumed so often without going on.
	maxResumes = 5
	// Waits before a stream is resumed.
	firstWait, longestWait = 100 * time.Millisecond, 5 * time.Second
	// How long it may take to say that a resumable stream was left.
	leaving = 5 * time.Second
)

// What ends a call and not the completion that it reads. "": the gateway has not said it, the connection broke.
var endsTheCall = map[string]bool{"": true, "SHUTTING_DOWN": true, "STORE_UNAVAILABLE": true}

// What ends a call because its reader has left it, or took too long.
var leaves = map[string]bool{"": true, "GATEWAY_TIMEOUT": true, "READER_STALLED": true}

// left tells whether a stream has ended with its reader, so that the completion may go on.
func left(end error) bool {
	var failed *Error
	return end == nil || errors.As(end, &failed) && failed.Code != codes.Unavailable && leaves[failed.Reason]
}

// lifeline is what a stream needs to outlive its connection.
type lifeline struct {
	// resume goes on with the stream over another call.
	resume func(*trunklinev1.ResumePoint) (trunklinev1.CompletionService_StreamCompletionClient, context.CancelFunc, error)
	// stop ends a completion by its id.
	stop func(id string)
	// done is that of the caller's context.
	done <-chan struct{}

	tries   int
	at      uint32
	stopped bool
}

// wait sleeps until the stream may be resumed after an event. False: it is not to be.
func (l *lifeline) wait(err error, last uint32) bool {
	var failed *Error
	if !errors.As(FromError(err), &failed) || failed.Code != codes.Unavailable || !endsTheCall[failed.Reason] {
		return false
	}
	if last != l.at {
		l.at, l.tries = last, 0
	}
	if l.tries++; l.tries > maxResumes {
		return false
	}
	longest := min(longestWait, firstWait<<(l.tries-1))
	timer := time.NewTimer(longest/2 + rand.N(longest/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.done:
		return false
	}
}

// Resume reads a resumable stream of the same caller from its first event on, as another program or process began it.
func (c *Client) Resume(ctx context.Context, completionID string) *Stream {
	return c.read(ctx, &trunklinev1.StreamCompletionRequest{
		Start: &trunklinev1.StreamCompletionRequest_Resume{
			Resume: &trunklinev1.ResumePoint{CompletionId: completionID},
		},
	})
}

// read makes the stream of a request.
func (c *Client) read(ctx context.Context, request *trunklinev1.StreamCompletionRequest) *Stream {
	var end time.Time
	open := func(request *trunklinev1.StreamCompletionRequest) (
		trunklinev1.CompletionService_StreamCompletionClient, context.CancelFunc, error,
	) {
		bounded, cancel := context.WithCancel(ctx)
		if _, ok := ctx.Deadline(); !ok && !end.IsZero() {
			cancel()
			bounded, cancel = context.WithDeadline(ctx, end)
		}
		call, err := c.StreamCompletion(bounded, request)
		return call, cancel, err
	}
	return &Stream{
		open: func() (trunklinev1.CompletionService_StreamCompletionClient, context.CancelFunc, error) {
			// One bound for the stream, however many calls read it.
			if timeout := c.conns.options.timeouts.Stream; timeout > 0 {
				end = time.Now().Add(timeout)
			}
			return open(request)
		},
		line: lifeline{
			resume: func(point *trunklinev1.ResumePoint) (
				trunklinev1.CompletionService_StreamCompletionClient, context.CancelFunc, error,
			) {
				return open(&trunklinev1.StreamCompletionRequest{
					Start:     &trunklinev1.StreamCompletionRequest_Resume{Resume: point},
					RequestId: request.GetRequestId(),
				})
			},
			stop: func(id string) {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaving)
				defer cancel()
				// If it cannot be said, the completion ends after a while.
				_, _ = c.CancelCompletion(ctx, &trunklinev1.CancelCompletionRequest{CompletionId: id})
			},
			done: ctx.Done(),
		},
	}
}
