package trunkline

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

var kept = &trunklinev1.CompletionStarted{CompletionId: "cmpl_1", Resumable: true}

// answerInFull is what a resumable stream consists of.
var answerInFull = []any{
	kept, attempt, begin(0, 0, Text("")), delta(0, 0, "Hello"), delta(0, 0, " there."), end(0, 0), stop(0), finished,
}

// script says, of a resumable stream, what follows the point that is asked for, up to where the turn breaks off.
type script struct {
	mu     sync.Mutex
	asked  []*trunklinev1.StreamCompletionRequest
	breaks []int
	with   error
}

func (s *script) stream(
	request *trunklinev1.StreamCompletionRequest, server trunklinev1.CompletionService_StreamCompletionServer,
) error {
	s.mu.Lock()
	turn := len(s.asked)
	s.asked = append(s.asked, request)
	s.mu.Unlock()
	upTo := len(answerInFull)
	if turn < len(s.breaks) {
		upTo = s.breaks[turn]
	}
	for _, event := range events(answerInFull...)[request.GetResume().GetAfterSequenceNumber():upTo] {
		if err := server.Send(event); err != nil {
			return err
		}
	}
	if turn < len(s.breaks) {
		return s.with
	}
	return nil
}

func TestAResumableStreamGoesOnWhereItsConnectionBroke(t *testing.T) {
	for _, breaks := range [][]int{{1}, {4}, {7}, {2, 2, 5}} {
		s := &script{breaks: breaks, with: status.Error(codes.Unavailable, "the connection broke")}
		client := (&gateway{stream: s.stream}).connect(t)
		stream := client.Stream(inTime(t), hello, RequestID("one"),
			StreamOptions(&trunklinev1.StreamOptions{Resumable: true}))
		completion, err := stream.Collect()
		if err != nil {
			t.Fatalf("broken at %v: %v", breaks, err)
		}
		if text := completion.GetChoices()[0].GetMessage().GetParts()[0].GetText().GetText(); text != "Hello there." {
			t.Errorf("broken at %v: the text is %q", breaks, text)
		}
		if len(s.asked) != len(breaks)+1 {
			t.Fatalf("broken at %v: %d calls", breaks, len(s.asked))
		}
		for i, request := range s.asked[1:] {
			point := request.GetResume()
			if point.GetCompletionId() != "cmpl_1" || int(point.GetAfterSequenceNumber()) != breaks[i] {
				t.Errorf("broken at %v: resumed at %v", breaks, point)
			}
			if request.GetRequestId() != "one" || request.GetStreamOptions() != nil {
				t.Errorf("resumed with %v", request)
			}
		}
	}
}

func TestAStreamThatIsResumedInVainIsGivenUp(t *testing.T) {
	s := &script{breaks: slices.Repeat([]int{3}, 100), with: failure(codes.Unavailable, "SHUTTING_DOWN", "later")}
	client := (&gateway{stream: s.stream}).connect(t)
	stream := client.Stream(inTime(t), hello)
	if _, err := stream.Collect(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("error is %v", err)
	}
	if len(s.asked) < maxResumes+1 {
		t.Errorf("%d calls", len(s.asked))
	}
}

func TestACompletionThatFailedIsNotResumed(t *testing.T) {
	for _, reason := range []string{"LLM_CONNECTION", "COMPLETION_LOST"} {
		s := &script{breaks: []int{3, 3}, with: failure(codes.Unavailable, reason, "over", &errdetails.RequestInfo{})}
		cancelled := make(chan string, 1)
		client := (&gateway{stream: s.stream, cancel: func(id string) { cancelled <- id }}).connect(t)
		if _, err := client.Stream(inTime(t), hello).Collect(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("error is %v", err)
		}
		if len(s.asked) != 1 || len(cancelled) != 0 {
			t.Errorf("%s: %d calls, %d cancelled", reason, len(s.asked), len(cancelled))
		}
	}
}

func TestLeavingAResumableStreamStopsItsCompletion(t *testing.T) {
	for name, leave := range map[string]func(*Stream, context.CancelFunc){
		"a loop": func(s *Stream, _ context.CancelFunc) {
			for range s.Events() {
				break
			}
		},
		"the context": func(s *Stream, cancel context.CancelFunc) {
			for range s.Text() {
				cancel()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cancelled := make(chan string, 2)
			g := &gateway{cancel: func(id string) { cancelled <- id }}
			g.stream = func(
				r *trunklinev1.StreamCompletionRequest, s trunklinev1.CompletionService_StreamCompletionServer,
			) error {
				err := say(nil, answerInFull[:5]...)(r, s)
				<-s.Context().Done()
				return err
			}
			ctx, cancel := context.WithCancel(inTime(t))
			defer cancel()
			stream := g.connect(t).Stream(ctx, hello)
			leave(stream, cancel)
			stream.Close()
			if id := <-cancelled; id != "cmpl_1" || len(cancelled) != 0 {
				t.Errorf("cancelled %q and %d more", id, len(cancelled))
			}
		})
	}
}

func TestAStreamThatWasReadToItsEndIsNotCancelled(t *testing.T) {
	client := (&gateway{
		stream: say(nil, answerInFull...), cancel: func(string) { t.Error("cancelled") },
	}).connect(t)
	stream := client.Stream(inTime(t), hello)
	if _, err := stream.Collect(); err != nil {
		t.Error(err)
	}
	stream.Close()
}

func TestAStreamOfAnotherProgramIsReadFromItsStart(t *testing.T) {
	s := &script{}
	client := (&gateway{stream: s.stream}).connect(t)
	if _, err := client.Resume(inTime(t), "cmpl_1").Collect(); err != nil {
		t.Fatal(err)
	}
	if id := s.asked[0].GetResume().GetCompletionId(); id != "cmpl_1" {
		t.Errorf("asked for %q", id)
	}
}
