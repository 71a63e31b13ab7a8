package trunkline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

func TestACallSendsTheSpecAndItsOptionsAndReturnsTheCompletion(t *testing.T) {
	var got *trunklinev1.CreateCompletionRequest
	g := &gateway{create: func(ctx context.Context, r *trunklinev1.CreateCompletionRequest) (*trunklinev1.Completion, error) {
		got = r
		return echo(ctx, r)
	}}
	options := &trunklinev1.CallOptions{IncludeRaw: true}

	completion, err := g.connect(t).Complete(inTime(t), hello, RequestID("order-7"), CallOptions(options))

	if err != nil {
		t.Fatal(err)
	}
	if text := TextOf(completion); text != "You said: Say hello." {
		t.Errorf("text is %q", text)
	}
	want := &trunklinev1.CreateCompletionRequest{Spec: hello, RequestId: "order-7", Options: options}
	if !proto.Equal(got, want) {
		t.Errorf("sent %v, want %v", got, want)
	}
}

func TestAStreamSendsTheSpecAndItsOptions(t *testing.T) {
	var got *trunklinev1.StreamCompletionRequest
	words := sayWords("Hi.")
	g := &gateway{stream: func(r *trunklinev1.StreamCompletionRequest, s trunklinev1.CompletionService_StreamCompletionServer) error {
		got = r
		return words(r, s)
	}}
	options, streaming := &trunklinev1.CallOptions{Credential: "mine"}, &trunklinev1.StreamOptions{IncludeCompletion: true}

	_, err := g.connect(t).
		Stream(inTime(t), hello, RequestID("order-7"), CallOptions(options), StreamOptions(streaming)).
		Collect()

	if err != nil {
		t.Fatal(err)
	}
	want := &trunklinev1.StreamCompletionRequest{
		Start:     &trunklinev1.StreamCompletionRequest_Spec{Spec: hello},
		RequestId: "order-7", Options: options, StreamOptions: streaming,
	}
	if !proto.Equal(got, want) {
		t.Errorf("sent %v, want %v", got, want)
	}
}

func TestAddressAndKeyComeFromTheEnvironmentUnlessGiven(t *testing.T) {
	g := &gateway{create: echo}
	t.Setenv("TRUNKLINE_ADDRESS", g.listen(t))
	t.Setenv("TRUNKLINE_API_KEY", "from-environment")
	for want, opts := range map[string][]Option{
		"Bearer from-environment": nil,
		"Bearer given":            {WithAPIKey("given")},
		"":                        {WithAPIKey("")},
	} {
		if _, err := newClient(t, opts...).Complete(inTime(t), hello); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(g.sent.Get("authorization"), ","); got != want {
			t.Errorf("authorization is %q, want %q", got, want)
		}
	}
}

func TestTheCallersOwnAuthorizationWins(t *testing.T) {
	g := &gateway{create: echo}
	ctx := metadata.AppendToOutgoingContext(inTime(t), "authorization", "Bearer tenant")

	if _, err := g.connect(t, WithAPIKey("house")).Complete(ctx, hello); err != nil {
		t.Fatal(err)
	}

	if got := g.sent.Get("authorization"); len(got) != 1 || got[0] != "Bearer tenant" {
		t.Errorf("authorization is %q", got)
	}
}

func TestTheUserAgentNamesTheClient(t *testing.T) {
	g := &gateway{create: echo}

	if _, err := g.connect(t).Complete(inTime(t), hello); err != nil {
		t.Fatal(err)
	}

	if agent := g.sent.Get("user-agent")[0]; !strings.HasPrefix(agent, "trunkline-go/"+Version+" ") {
		t.Errorf("user agent is %q", agent)
	}
}

func TestCallsTakeConnectionsInTurn(t *testing.T) {
	g := &gateway{create: echo, stream: sayWords("Hi.")}
	client := g.connect(t, WithConnections(3))

	for range 6 {
		if _, err := client.Complete(inTime(t), hello); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if _, err := client.Stream(inTime(t), hello).Collect(); err != nil {
			t.Fatal(err)
		}
	}

	if len(g.peers) != 3 {
		t.Fatalf("%d connections", len(g.peers))
	}
	for from, calls := range g.peers {
		if calls != 3 {
			t.Errorf("%d calls from %s", calls, from)
		}
	}
}

func TestEveryServerBehindANameIsReached(t *testing.T) {
	first, second := &gateway{create: echo}, &gateway{create: echo}
	names := manual.NewBuilderWithScheme("names")
	names.InitialState(resolver.State{Endpoints: []resolver.Endpoint{
		{Addresses: []resolver.Address{{Addr: first.listen(t)}}},
		{Addresses: []resolver.Address{{Addr: second.listen(t)}}},
	}})
	client := newClient(t, WithAddress("names:///gateway"), WithPlaintext(), WithConnections(1),
		WithDialOptions(grpc.WithResolvers(names)))

	for ctx := inTime(t); first.count() == 0 || second.count() == 0; {
		if _, err := client.Complete(ctx, hello); err != nil {
			t.Fatal(err)
		}
	}
}

func TestABrokenConnectionIsPassedOver(t *testing.T) {
	g := &gateway{create: echo}
	var refuse atomic.Bool
	client := g.connect(t, WithDialOptions(grpc.WithDisableRetry(),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			if refuse.Load() {
				return nil, errors.New("refused")
			}
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		})))
	if _, err := client.Complete(inTime(t), hello); err != nil {
		t.Fatal(err)
	}
	refuse.Store(true)
	if _, err := client.Complete(inTime(t), hello); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("the second connection answered: %v", err)
	}

	for range 10 {
		if _, err := client.Complete(inTime(t), hello); err != nil {
			t.Fatal(err)
		}
	}
}

func TestACallWithoutADeadlineGetsTheDefault(t *testing.T) {
	left := make(chan time.Duration, 1)
	note := func(ctx context.Context) {
		if deadline, ok := ctx.Deadline(); ok {
			left <- time.Until(deadline)
		} else {
			left <- -1
		}
	}
	words := sayWords("Hi.")
	g := &gateway{
		create: func(ctx context.Context, r *trunklinev1.CreateCompletionRequest) (*trunklinev1.Completion, error) {
			note(ctx)
			return echo(ctx, r)
		},
		stream: func(r *trunklinev1.StreamCompletionRequest, s trunklinev1.CompletionService_StreamCompletionServer) error {
			note(s.Context())
			return words(r, s)
		},
		models: func(ctx context.Context, _ *trunklinev1.ListModelsRequest) (*trunklinev1.ListModelsResponse, error) {
			note(ctx)
			return &trunklinev1.ListModelsResponse{}, nil
		},
	}
	address := g.listen(t)
	calls := map[string]func(context.Context, *Client){
		"unary":  func(ctx context.Context, c *Client) { _, _ = c.Complete(ctx, hello) },
		"stream": func(ctx context.Context, c *Client) { _, _ = c.Stream(ctx, hello).Collect() },
		"models": func(ctx context.Context, c *Client) {
			for range c.Models(ctx, "") {
				t.Error("there are no models")
			}
		},
	}
	for _, row := range []struct {
		call   string
		caller time.Duration
		opts   []Option
		want   time.Duration
	}{
		{call: "unary", want: 10 * time.Minute},
		{call: "stream", want: 30 * time.Minute},
		{call: "models", want: 30 * time.Second},
		{call: "unary", caller: 5 * time.Second, want: 5 * time.Second},
		{call: "unary", caller: 2 * time.Hour, want: 2 * time.Hour},
		{call: "stream", caller: 2 * time.Hour, want: 2 * time.Hour},
		{call: "models", caller: 2 * time.Hour, want: 2 * time.Hour},
		{call: "unary", opts: []Option{WithTimeouts(Timeouts{Unary: time.Minute})}, want: time.Minute},
		{call: "stream", opts: []Option{WithTimeouts(Timeouts{Unary: time.Minute})}, want: 30 * time.Minute},
		{call: "stream", opts: []Option{WithTimeouts(Timeouts{Stream: -1})}, want: -1},
	} {
		t.Run(fmt.Sprintf("%s, caller %s, %d options", row.call, row.caller, len(row.opts)), func(t *testing.T) {
			ctx := context.Background()
			if row.caller > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, row.caller)
				defer cancel()
			}
			calls[row.call](ctx, newClient(t, append(row.opts, WithAddress(address))...))
			if got := <-left; got > row.want || got < row.want-5*time.Second {
				t.Errorf("%s left, want %s", got, row.want)
			}
		})
	}
}

func TestModelsAreReadPageByPage(t *testing.T) {
	pages := map[string]*trunklinev1.ListModelsResponse{
		"":  {Models: []*trunklinev1.Model{{Name: "fake/echo"}, {Name: "fake/json"}}, NextPageToken: "2"},
		"2": {Models: []*trunklinev1.Model{{Name: "fake/tool"}}},
	}
	g := &gateway{models: func(_ context.Context, r *trunklinev1.ListModelsRequest) (*trunklinev1.ListModelsResponse, error) {
		if r.GetProvider() != "fake" {
			return nil, failure(codes.NotFound, "NOT_FOUND", "no such provider")
		}
		return pages[r.GetPageToken()], nil
	}}
	client := g.connect(t)

	var names []string
	for model, err := range client.Models(inTime(t), "fake") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, model.GetName())
	}

	if got := strings.Join(names, " "); got != "fake/echo fake/json fake/tool" {
		t.Errorf("models are %q", got)
	}
	for _, err := range client.Models(inTime(t), "none") {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("error is %v", err)
		}
	}
}

func TestOtherStubsShareTheConnections(t *testing.T) {
	client := (&gateway{}).connect(t)

	_, err := grpc_health_v1.NewHealthClient(client.Conn()).Check(inTime(t), &grpc_health_v1.HealthCheckRequest{})

	if !errors.Is(err, ErrUnimplemented) {
		t.Errorf("error is %v", err)
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("code is %s", status.Code(err))
	}
}
