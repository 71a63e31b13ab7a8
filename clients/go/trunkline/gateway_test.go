package trunkline

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	trunklinev1alpha "github.com/trunkline/trunkline/clients/go/trunkline/v1alpha"
)

// gateway is a server that says what a test tells it to say, on a real port.
type gateway struct {
	trunklinev1.UnimplementedCompletionServiceServer
	trunklinev1.UnimplementedModelServiceServer
	trunklinev1alpha.UnimplementedTraceServiceServer

	create func(context.Context, *trunklinev1.CreateCompletionRequest) (*trunklinev1.Completion, error)
	stream func(*trunklinev1.StreamCompletionRequest, trunklinev1.CompletionService_StreamCompletionServer) error
	cancel func(id string)
	models func(context.Context, *trunklinev1.ListModelsRequest) (*trunklinev1.ListModelsResponse, error)

	mu    sync.Mutex
	calls []time.Time
	peers map[string]int
	sent  metadata.MD // of the last call
}

// note counts a call and returns how many there were before.
func (g *gateway) note(ctx context.Context) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	from, _ := peer.FromContext(ctx)
	g.peers[from.Addr.String()]++
	g.sent, _ = metadata.FromIncomingContext(ctx)
	g.calls = append(g.calls, time.Now())
	return len(g.calls) - 1
}

func (g *gateway) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.calls)
}

func (g *gateway) CreateCompletion(
	ctx context.Context, request *trunklinev1.CreateCompletionRequest,
) (*trunklinev1.CreateCompletionResponse, error) {
	g.note(ctx)
	completion, err := g.create(ctx, request)
	return &trunklinev1.CreateCompletionResponse{Completion: completion}, err
}

func (g *gateway) StreamCompletion(
	request *trunklinev1.StreamCompletionRequest, server trunklinev1.CompletionService_StreamCompletionServer,
) error {
	g.note(server.Context())
	return g.stream(request, server)
}

func (g *gateway) CancelCompletion(
	ctx context.Context, request *trunklinev1.CancelCompletionRequest,
) (*trunklinev1.CancelCompletionResponse, error) {
	g.cancel(request.GetCompletionId())
	return &trunklinev1.CancelCompletionResponse{}, nil
}

func (g *gateway) ListModels(
	ctx context.Context, request *trunklinev1.ListModelsRequest,
) (*trunklinev1.ListModelsResponse, error) {
	g.note(ctx)
	return g.models(ctx, request)
}

// ListTraces knows one record.
func (g *gateway) ListTraces(
	ctx context.Context, request *trunklinev1alpha.ListTracesRequest,
) (*trunklinev1alpha.ListTracesResponse, error) {
	g.note(ctx)
	record := &trunklinev1alpha.Trace{
		Name: "traces/cmpl_1", Model: "gpt-5.2", Provider: request.GetFilter().GetProvider(),
		Status: &trunklinev1alpha.CallStatus{Code: int32(codes.ResourceExhausted), Reason: "LLM_RATE_LIMITED"},
	}
	return &trunklinev1alpha.ListTracesResponse{Traces: []*trunklinev1alpha.Trace{record}}, nil
}

// serve listens on a free port.
func (g *gateway) serve(opts ...grpc.ServerOption) (address string, stop func(), err error) {
	g.peers = map[string]int{}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(maxMessage))...)
	trunklinev1.RegisterCompletionServiceServer(server, g)
	trunklinev1.RegisterModelServiceServer(server, g)
	trunklinev1alpha.RegisterTraceServiceServer(server, g)
	go func() { _ = server.Serve(listener) }()
	return listener.Addr().String(), server.Stop, nil
}

// listen serves until the test ends.
func (g *gateway) listen(t *testing.T, opts ...grpc.ServerOption) string {
	t.Helper()
	address, stop, err := g.serve(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return address
}

// connect serves and returns a client of it.
func (g *gateway) connect(t *testing.T, opts ...Option) *Client {
	t.Helper()
	return newClient(t, append([]Option{WithAddress(g.listen(t))}, opts...)...)
}

func newClient(t *testing.T, opts ...Option) *Client {
	t.Helper()
	client, err := New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// inTime is a context that keeps a broken test from hanging.
func inTime(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

var hello = Spec("fake/echo", User("Say hello."))

func answer(text string) *trunklinev1.Completion {
	return &trunklinev1.Completion{Id: "cmpl_1", Choices: []*trunklinev1.Choice{{
		Message: Assistant(text), FinishReason: trunklinev1.FinishReason_FINISH_REASON_STOP,
	}}}
}

// echo answers with the text of the last message.
func echo(_ context.Context, request *trunklinev1.CreateCompletionRequest) (*trunklinev1.Completion, error) {
	messages := request.GetSpec().GetMessages()
	return answer("You said: " + messages[len(messages)-1].GetParts()[0].GetText().GetText()), nil
}

// failure is a status as the gateway makes it.
func failure(code codes.Code, reason, message string, details ...protoadapt.MessageV1) error {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: "trunkline", Metadata: map[string]string{"provider": "fake"}}
	s, err := status.New(code, message).WithDetails(append([]protoadapt.MessageV1{info}, details...)...)
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func retryIn(delay time.Duration) *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(delay)}
}

// events numbers the events from 1.
func events(list ...any) (numbered []*trunklinev1.StreamCompletionResponse) {
	for i, item := range list {
		event := &trunklinev1.StreamCompletionResponse{SequenceNumber: uint32(i) + 1}
		switch e := item.(type) {
		case *trunklinev1.CompletionStarted:
			event.Event = &trunklinev1.StreamCompletionResponse_Started{Started: e}
		case *trunklinev1.AttemptStarted:
			event.Event = &trunklinev1.StreamCompletionResponse_AttemptStarted{AttemptStarted: e}
		case *trunklinev1.PartStarted:
			event.Event = &trunklinev1.StreamCompletionResponse_PartStarted{PartStarted: e}
		case *trunklinev1.PartDelta:
			event.Event = &trunklinev1.StreamCompletionResponse_PartDelta{PartDelta: e}
		case *trunklinev1.PartFinished:
			event.Event = &trunklinev1.StreamCompletionResponse_PartFinished{PartFinished: e}
		case *trunklinev1.ChoiceFinished:
			event.Event = &trunklinev1.StreamCompletionResponse_ChoiceFinished{ChoiceFinished: e}
		case *trunklinev1.UsageUpdated:
			event.Event = &trunklinev1.StreamCompletionResponse_UsageUpdated{UsageUpdated: e}
		case *trunklinev1.Heartbeat:
			event.Event = &trunklinev1.StreamCompletionResponse_Heartbeat{Heartbeat: e}
		case *trunklinev1.CompletionRestarted:
			event.Event = &trunklinev1.StreamCompletionResponse_Restarted{Restarted: e}
		case *trunklinev1.RawEvent:
			event.Event = &trunklinev1.StreamCompletionResponse_Raw{Raw: e}
		case *trunklinev1.CompletionFinished:
			event.Event = &trunklinev1.StreamCompletionResponse_Finished{Finished: e}
		case nil: // an event that these stubs do not know
		default:
			panic(e)
		}
		numbered = append(numbered, event)
	}
	return numbered
}

var (
	started  = &trunklinev1.CompletionStarted{CompletionId: "cmpl_1"}
	attempt  = &trunklinev1.AttemptStarted{Attempt: 1, Provider: "fake", Model: "echo"}
	finished = &trunklinev1.CompletionFinished{Attempts: 1}
)

func begin(choice, part int32, content *trunklinev1.ContentPart) *trunklinev1.PartStarted {
	return &trunklinev1.PartStarted{ChoiceIndex: choice, PartIndex: part, Part: content}
}

func delta(choice, part int32, text string) *trunklinev1.PartDelta {
	return &trunklinev1.PartDelta{
		ChoiceIndex: choice, PartIndex: part, Delta: &trunklinev1.PartDelta_Text{Text: text},
	}
}

func end(choice, part int32) *trunklinev1.PartFinished {
	return &trunklinev1.PartFinished{ChoiceIndex: choice, PartIndex: part}
}

func stop(choice int32) *trunklinev1.ChoiceFinished {
	return &trunklinev1.ChoiceFinished{
		ChoiceIndex: choice, FinishReason: trunklinev1.FinishReason_FINISH_REASON_STOP, RawFinishReason: "stop",
	}
}

// say sends events, then ends the call with an error or with OK.
func say(err error, list ...any) func(
	*trunklinev1.StreamCompletionRequest, trunklinev1.CompletionService_StreamCompletionServer) error {
	return func(_ *trunklinev1.StreamCompletionRequest, server trunklinev1.CompletionService_StreamCompletionServer) error {
		for _, event := range events(list...) {
			if err := server.Send(event); err != nil {
				return err
			}
		}
		return err
	}
}

// sayWords streams an answer word by word.
func sayWords(text string) func(
	*trunklinev1.StreamCompletionRequest, trunklinev1.CompletionService_StreamCompletionServer) error {
	list := []any{started, attempt, begin(0, 0, Text(""))}
	for _, word := range strings.SplitAfter(text, " ") {
		list = append(list, delta(0, 0, word))
	}
	return say(nil, append(list, end(0, 0), stop(0), finished)...)
}
