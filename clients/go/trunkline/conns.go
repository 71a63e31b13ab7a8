package trunkline

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

const (
	// maxMessage bounds an answer that is received, and a request that is kept for a retry.
	maxMessage = 64 << 20

	// Only UNAVAILABLE is safe to repeat: everything else may have cost money. gRPC obeys the gateway's
	// grpc-retry-pushback-ms on its own.
	serviceConfig = `{
		"loadBalancingConfig": [{"round_robin": {}}],
		"methodConfig": [{
			"name": [
				{"service": "trunkline.v1.CompletionService"},
				{"service": "trunkline.v1.EmbeddingService"},
				{"service": "trunkline.v1.ModelService"},
				{"service": "trunkline.v1alpha.TraceService"}
			],
			"retryPolicy": {
				"maxAttempts": 3, "initialBackoff": "0.2s", "maxBackoff": "5s", "backoffMultiplier": 2,
				"retryableStatusCodes": ["UNAVAILABLE"]
			}
		}],
		"retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1}
	}`
)

// conns gives calls to its connections in turn and does for each what all calls need: key, deadline, typed errors.
type conns struct {
	options *options
	all     []*grpc.ClientConn
	turn    atomic.Uint32
}

func dial(opts []Option) (*conns, error) {
	o, err := newOptions(opts)
	if err != nil {
		return nil, err
	}
	dialOptions := append([]grpc.DialOption{
		grpc.WithTransportCredentials(o.credentials()),
		grpc.WithUserAgent("trunkline-go/" + Version),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableServiceConfig(), // a TXT record of the host would replace ours
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxRetryRPCBufferSize(maxMessage)),
	}, o.dial...)
	c := &conns{options: o}
	for range o.connections {
		conn, err := grpc.NewClient(o.address, dialOptions...)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.all = append(c.all, conn)
	}
	return c, nil
}

func (c *conns) close() error {
	var problems []error
	for _, conn := range c.all {
		problems = append(problems, conn.Close())
	}
	return errors.Join(problems...)
}

// pick returns the next connection that is not known to be broken, or the next one if all are.
func (c *conns) pick() *grpc.ClientConn {
	turn, n := c.turn.Add(1), uint32(len(c.all))
	for i := range n {
		if conn := c.all[(turn%n+i)%n]; conn.GetState() != connectivity.TransientFailure {
			return conn
		}
	}
	return c.all[turn%n]
}

// prepare adds the key, and the deadline if the caller has set none.
func (c *conns) prepare(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if sent, _ := metadata.FromOutgoingContext(ctx); c.options.apiKey != "" && sent.Get("authorization") == nil {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.options.apiKey)
	}
	if _, ok := ctx.Deadline(); ok || timeout < 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// Invoke makes a unary call.
func (c *conns) Invoke(ctx context.Context, method string, request, response any, opts ...grpc.CallOption) error {
	timeout := c.options.timeouts.Unary
	if strings.HasPrefix(method, "/trunkline.v1.ModelService/") {
		timeout = c.options.timeouts.Models
	}
	ctx, cancel := c.prepare(ctx, timeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		var trailer metadata.MD
		err := c.pick().Invoke(ctx, method, request, response, append(opts[:len(opts):len(opts)], grpc.Trailer(&trailer))...)
		if !c.waitOut(ctx, err, trailer, attempt) {
			return FromError(err)
		}
	}
}

// NewStream makes a streaming call. Each is a request followed by answers.
func (c *conns) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	ctx, cancel := c.prepare(ctx, c.options.timeouts.Stream)
	open := func() (grpc.ClientStream, error) { return c.pick().NewStream(ctx, desc, method, opts...) }
	stream, err := open()
	if err != nil {
		cancel()
		return nil, FromError(err)
	}
	return &call{ClientStream: stream, ctx: ctx, cancel: cancel, conns: c, open: open}, nil
}

// call is a stream whose errors are ours, and which begins again after a rate limit that came before its first answer.
type call struct {
	grpc.ClientStream
	ctx      context.Context
	cancel   context.CancelFunc
	conns    *conns
	open     func() (grpc.ClientStream, error)
	request  any
	attempt  int
	answered bool
}

func (c *call) SendMsg(request any) error {
	c.request = request
	err := c.ClientStream.SendMsg(request)
	if err != nil {
		c.cancel()
	}
	return FromError(err)
}

func (c *call) RecvMsg(response any) error {
	err := c.ClientStream.RecvMsg(response)
	for err != nil && err != io.EOF && !c.answered && c.conns.waitOut(c.ctx, err, c.Trailer(), c.attempt) {
		c.attempt++
		err = c.again(response)
	}
	if err != nil {
		c.cancel()
		return FromError(err)
	}
	c.answered, c.request = true, nil
	return nil
}

func (c *call) again(response any) error {
	stream, err := c.open()
	if err != nil {
		return err
	}
	c.ClientStream = stream
	// A stream that fails while it is sent to says why when it is read.
	if err := stream.SendMsg(c.request); err != nil && err != io.EOF {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(response)
}

// waitOut sleeps until a rate-limited call may be repeated. False: it is not to be, or not in time.
func (c *conns) waitOut(ctx context.Context, err error, trailer metadata.MD, attempt int) bool {
	var failed *Error
	if attempt >= c.options.rateLimitRetries || !errors.As(FromError(err), &failed) || !errors.Is(failed, ErrRateLimited) {
		return false
	}
	for _, pushback := range trailer.Get("grpc-retry-pushback-ms") {
		if ms, err := strconv.Atoi(pushback); err != nil || ms < 0 {
			return false
		}
	}
	if deadline, ok := ctx.Deadline(); failed.RetryAfter <= 0 || ok && time.Until(deadline) <= failed.RetryAfter {
		return false
	}
	timer := time.NewTimer(failed.RetryAfter)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
