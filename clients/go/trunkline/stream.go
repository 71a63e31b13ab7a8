package trunkline

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/grpc/codes"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// Stream is an answer in the making. It checks the rules of the stream and collects what it reads, so that
// [Stream.Completion] is whole once reading ended without an error. One that is resumable (StreamOptions.resumable) goes
// on over another connection where one breaks. It is not safe for concurrent use.
type Stream struct {
	open      func() (trunklinev1.CompletionService_StreamCompletionClient, context.CancelFunc, error)
	call      trunklinev1.CompletionService_StreamCompletionClient
	cancel    context.CancelFunc
	collector Collector
	end       error
	line      lifeline
}

// Events reads every event. An error is the last thing it yields. Leaving the loop early cancels the call.
func (s *Stream) Events() iter.Seq2[*trunklinev1.StreamCompletionResponse, error] {
	return func(yield func(*trunklinev1.StreamCompletionResponse, error) bool) {
		defer s.Close()
		for {
			event, err := s.next()
			if err == io.EOF || !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// errRestarted ends a text that cannot be read on: its reader has what is to be forgotten.
var errRestarted = errors.New("the answer began again after text was given out; read the events to follow that")

// Text reads the text of the first choice, piece by piece, and passes over all else. An error is the last thing it
// yields, also where the answer begins again after text was given out (AFTER_FIRST_TOKEN_RESTART). Leaving the loop early
// cancels the call.
func (s *Stream) Text() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		given := false
		for event, err := range s.Events() {
			text := ""
			if err == nil {
				text = s.collector.textOf(event)
				if given && event.GetRestarted() != nil {
					err = errRestarted
				}
			}
			given = given || text != ""
			if (text != "" || err != nil) && (!yield(text, err) || err != nil) {
				return
			}
		}
	}
}

// Collect reads to the end and returns the whole answer, equal to that of a unary call. After an error,
// [Stream.Completion] has what was delivered.
func (s *Stream) Collect() (*trunklinev1.Completion, error) {
	for _, err := range s.Events() {
		if err != nil {
			return nil, err
		}
	}
	return s.Completion(), nil
}

// Completion is what has been read so far.
func (s *Stream) Completion() *trunklinev1.Completion { return s.collector.Completion() }

// Close cancels the call unless it has ended, and the completion of a resumable stream with it. The loops over
// [Stream.Events] and [Stream.Text] do it themselves.
func (s *Stream) Close() {
	stop := left(s.end) && s.collector.started.GetResumable() && s.collector.finished == nil && !s.line.stopped
	if s.end == nil {
		s.end = streamError(ErrStreamIncomplete, codes.Canceled, s.collector.started.GetCompletionId(), "the reader left")
	}
	if s.cancel != nil {
		s.cancel()
	}
	if stop {
		s.line.stopped = true
		s.line.stop(s.collector.started.GetCompletionId())
	}
}

func (s *Stream) next() (*trunklinev1.StreamCompletionResponse, error) {
	if s.end == nil && s.call == nil {
		s.call, s.cancel, s.end = s.open()
	}
	if s.end != nil {
		return nil, s.end
	}
	event, err := s.call.Recv()
	for err != nil && err != io.EOF && s.collector.started.GetResumable() && s.line.wait(err, s.collector.last) {
		event, err = s.resume()
	}
	switch err {
	case nil:
		s.end = s.collector.Add(event)
	case io.EOF:
		s.end = s.collector.ended()
	default:
		s.end = err
	}
	if s.end != nil {
		return nil, s.end
	}
	return event, nil
}

// resume goes on over another call, after the last event.
func (s *Stream) resume() (*trunklinev1.StreamCompletionResponse, error) {
	s.cancel()
	call, cancel, err := s.line.resume(&trunklinev1.ResumePoint{
		CompletionId: s.collector.started.GetCompletionId(), AfterSequenceNumber: s.collector.last,
	})
	if err != nil {
		cancel()
		return nil, err
	}
	s.call, s.cancel = call, cancel
	return call.Recv()
}
