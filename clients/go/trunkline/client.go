// Package trunkline calls LLMs through a trunkline gateway.
//
// A [Client] holds the generated stubs of every service, so each RPC can be called as the contract defines it. All calls
// have a deadline, are retried as the gateway allows and fail with an [*Error]. [Client.Complete], [Client.Stream] and
// [Parse] are the short forms of what is done most.
package trunkline

import (
	"context"
	"iter"

	"google.golang.org/grpc"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// Version of this client, sent as its user agent.
const Version = "0.1.0"

// Client calls one gateway. It is safe for concurrent use; make one and keep it.
type Client struct {
	trunklinev1.CompletionServiceClient
	trunklinev1.EmbeddingServiceClient
	trunklinev1.ModelServiceClient

	conns *conns
}

// New makes a client of the gateway at TRUNKLINE_ADDRESS, or 127.0.0.1:50051, unless an option says otherwise. It
// connects with the first call. The error names every wrong option. Whoever made the client closes it.
func New(opts ...Option) (*Client, error) {
	conns, err := dial(opts)
	if err != nil {
		return nil, err
	}
	return &Client{
		CompletionServiceClient: trunklinev1.NewCompletionServiceClient(conns),
		EmbeddingServiceClient:  trunklinev1.NewEmbeddingServiceClient(conns),
		ModelServiceClient:      trunklinev1.NewModelServiceClient(conns),
		conns:                   conns,
	}, nil
}

// Conn is for stubs that the client does not hold, such as health. Calls through it have the same deadlines, retries and
// errors.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conns }

// Close ends all connections and the calls on them.
func (c *Client) Close() error { return c.conns.close() }

// RequestOption sets what a request holds besides its spec.
type RequestOption func(*request)

// request is what the unary and the streamed request have in common, and the stream's own options.
type request struct {
	id      string
	options *trunklinev1.CallOptions
	stream  *trunklinev1.StreamOptions
}

func newRequest(opts []RequestOption) (r request) {
	for _, opt := range opts {
		opt(&r)
	}
	return r
}

// RequestID names the call in the gateway's logs and errors; at most 128 printable ASCII characters.
func RequestID(id string) RequestOption { return func(r *request) { r.id = id } }

// CallOptions asks of the gateway what belongs to the call and not to the completion.
func CallOptions(o *trunklinev1.CallOptions) RequestOption { return func(r *request) { r.options = o } }

// StreamOptions says how to stream. [Client.Complete] and [Parse] ignore it.
func StreamOptions(o *trunklinev1.StreamOptions) RequestOption {
	return func(r *request) { r.stream = o }
}

// Complete returns the whole answer at once.
func (c *Client) Complete(
	ctx context.Context, spec *trunklinev1.CompletionSpec, opts ...RequestOption,
) (*trunklinev1.Completion, error) {
	r := newRequest(opts)
	response, err := c.CreateCompletion(ctx, &trunklinev1.CreateCompletionRequest{
		Spec: spec, RequestId: r.id, Options: r.options,
	})
	if err != nil {
		return nil, err
	}
	return response.GetCompletion(), nil
}

// Stream returns the answer as it is made. The call begins when the stream is first read, and whatever goes wrong is
// told by reading it. With StreamOptions.resumable it survives connections that break.
func (c *Client) Stream(ctx context.Context, spec *trunklinev1.CompletionSpec, opts ...RequestOption) *Stream {
	r := newRequest(opts)
	return c.read(ctx, &trunklinev1.StreamCompletionRequest{
		Start:     &trunklinev1.StreamCompletionRequest_Spec{Spec: spec},
		RequestId: r.id, Options: r.options, StreamOptions: r.stream,
	})
}

// Models lists what can be called, by name, page by page as it is read. An empty provider means all.
func (c *Client) Models(ctx context.Context, provider string) iter.Seq2[*trunklinev1.Model, error] {
	return func(yield func(*trunklinev1.Model, error) bool) {
		request := &trunklinev1.ListModelsRequest{Provider: provider}
		for {
			page, err := c.ListModels(ctx, request)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, model := range page.GetModels() {
				if !yield(model, nil) {
					return
				}
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return
			}
		}
	}
}
