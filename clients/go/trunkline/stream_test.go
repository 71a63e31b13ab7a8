package trunkline

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

func TestTextArrivesPieceByPieceAndTheCompletionIsKept(t *testing.T) {
	stream := (&gateway{stream: sayWords("One two three.")}).connect(t).Stream(inTime(t), hello)

	var pieces []string
	for text, err := range stream.Text() {
		if err != nil {
			t.Fatal(err)
		}
		pieces = append(pieces, text)
	}

	if got := strings.Join(pieces, "|"); got != "One |two |three." {
		t.Errorf("pieces are %q", got)
	}
	if got := stream.Completion(); TextOf(got) != "One two three." ||
		got.GetChoices()[0].GetFinishReason() != trunklinev1.FinishReason_FINISH_REASON_STOP {
		t.Errorf("completion is %v", got)
	}
}

func TestTextIsOnlyTheAnswerOfTheFirstChoice(t *testing.T) {
	thinking := &trunklinev1.ContentPart{Kind: &trunklinev1.ContentPart_Reasoning{Reasoning: &trunklinev1.Reasoning{Text: "Hm"}}}
	g := &gateway{stream: say(nil, started, attempt,
		begin(0, 0, thinking), delta(0, 0, ", well"), end(0, 0),
		begin(0, 1, Text("Yes")), begin(1, 0, Text("No")), delta(0, 1, "."), delta(1, 0, "!"),
		end(0, 1), end(1, 0), stop(0), stop(1), finished)}
	stream := g.connect(t).Stream(inTime(t), hello)

	var text strings.Builder
	for piece, err := range stream.Text() {
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(piece)
	}

	if text.String() != "Yes." {
		t.Errorf("text is %q", text.String())
	}
	if choices := stream.Completion().GetChoices(); len(choices) != 2 ||
		choices[0].GetMessage().GetParts()[0].GetReasoning().GetText() != "Hm, well" ||
		choices[1].GetMessage().GetParts()[0].GetText().GetText() != "No!" {
		t.Errorf("choices are %v", choices)
	}
}

func TestEventsArriveInOrder(t *testing.T) {
	stream := (&gateway{stream: sayWords("One two.")}).connect(t).Stream(inTime(t), hello)

	var numbers []uint32
	for event, err := range stream.Events() {
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, event.GetSequenceNumber())
	}

	if len(numbers) != 8 || numbers[0] != 1 || numbers[7] != 8 {
		t.Errorf("numbers are %v", numbers)
	}
	for range stream.Events() {
		t.Error("an event after the end")
	}
}

func TestLeavingEarlyCancelsTheCall(t *testing.T) {
	cancelled := make(chan struct{}, 1)
	g := &gateway{stream: func(r *trunklinev1.StreamCompletionRequest, s trunklinev1.CompletionService_StreamCompletionServer) error {
		if err := say(nil, started, attempt, begin(0, 0, Text("One")))(r, s); err != nil {
			return err
		}
		<-s.Context().Done()
		cancelled <- struct{}{}
		return s.Context().Err()
	}}
	client := g.connect(t)
	for name, leave := range map[string]func(*Stream, context.CancelFunc){
		"a loop over events": func(s *Stream, _ context.CancelFunc) {
			for range s.Events() {
				break
			}
		},
		"a loop over text": func(s *Stream, _ context.CancelFunc) {
			for range s.Text() {
				break
			}
		},
		"the context": func(s *Stream, cancel context.CancelFunc) {
			for _, err := range s.Text() {
				cancel()
				if err != nil && !errors.Is(err, ErrCancelled) {
					t.Errorf("error is %v", err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			stream := client.Stream(ctx, hello)
			leave(stream, cancel)
			select {
			case <-cancelled:
			case <-time.After(10 * time.Second):
				t.Fatal("the call goes on")
			}
			if _, err := stream.Collect(); !errors.Is(err, ErrStreamIncomplete) && !errors.Is(err, ErrCancelled) {
				t.Errorf("what was left early looks whole: %v", err)
			}
		})
	}
}

func TestAStreamThatIsNeverReadMakesNoCall(t *testing.T) {
	g := &gateway{stream: sayWords("Hi.")}
	stream := g.connect(t).Stream(inTime(t), hello)

	stream.Close()

	if _, err := stream.Collect(); !errors.Is(err, ErrStreamIncomplete) || g.count() != 0 {
		t.Errorf("%d calls, error %v", g.count(), err)
	}
}

func TestAnErrorInTheMiddleKeepsWhatWasDelivered(t *testing.T) {
	usage := &trunklinev1.Usage{InputTokens: proto.Int32(5), Source: trunklinev1.UsageSource_USAGE_SOURCE_PARTIAL}
	g := &gateway{stream: say(failure(codes.Unavailable, "LLM_CONNECTION", "the provider cut the stream"),
		started, attempt, begin(0, 0, Text("One")), delta(0, 0, " two"), &trunklinev1.UsageUpdated{Usage: usage})}
	stream := g.connect(t).Stream(inTime(t), hello)

	completion, err := stream.Collect()

	if completion != nil || ReasonOf(err) != "LLM_CONNECTION" || !errors.Is(err, ErrUnavailable) {
		t.Errorf("completion %v, error %v", completion, err)
	}
	if got := stream.Completion(); TextOf(got) != "One two" || got.GetId() != "cmpl_1" || !proto.Equal(got.GetUsage(), usage) {
		t.Errorf("delivered was %v", got)
	}
	var again error
	for _, again = range stream.Text() {
	}
	if again != err {
		t.Errorf("read again, it says %v", again)
	}
}

func TestAStreamWithoutFinishedIsNeverWhole(t *testing.T) {
	for name, list := range map[string][]any{
		"nothing":    {},
		"no answer":  {started},
		"cut off":    {started, attempt, begin(0, 0, Text("One")), delta(0, 0, " two")},
		"no last":    {started, attempt, begin(0, 0, Text("One")), end(0, 0), stop(0)},
		"heartbeats": {started, &trunklinev1.Heartbeat{}},
	} {
		_, err := (&gateway{stream: say(nil, list...)}).connect(t).Stream(inTime(t), hello).Collect()
		var e *Error
		if !errors.As(err, &e) || e.Kind != ErrStreamIncomplete || e.Code != codes.Unavailable || !e.Retryable {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestAnErrorAfterFinishedIsAnError(t *testing.T) {
	g := &gateway{stream: say(failure(codes.Internal, "INTERNAL", "internal error"), started, attempt, finished)}

	_, err := g.connect(t).Stream(inTime(t), hello).Collect()

	if ReasonOf(err) != "INTERNAL" {
		t.Errorf("error is %v", err)
	}
}

func TestEveryRuleOfAStreamIsChecked(t *testing.T) {
	picture := &trunklinev1.ContentPart{Kind: &trunklinev1.ContentPart_Image{Image: &trunklinev1.Media{}}}
	open := []any{started, attempt, begin(0, 0, Text(""))}
	for name, row := range map[string]struct {
		events []any
		says   string
	}{
		"started first":                 {[]any{attempt}, "started comes first"},
		"started once":                  {[]any{started, started}, "started comes first, and once"},
		"heartbeat before started":      {[]any{&trunklinev1.Heartbeat{}}, "started comes first"},
		"second attempt":                {[]any{started, attempt, attempt}, "without restarted"},
		"restart of nothing":            {[]any{started, &trunklinev1.CompletionRestarted{}}, "restarted before"},
		"part before attempt":           {[]any{started, begin(0, 0, Text(""))}, "no attempt has started"},
		"part after restart":            {append(open, &trunklinev1.CompletionRestarted{}, begin(0, 0, Text(""))), "no attempt"},
		"part with a gap":               {[]any{started, attempt, begin(0, 1, Text(""))}, "part 0 of choice 0 was due"},
		"part twice":                    {append(open, begin(0, 0, Text(""))), "part 1 of choice 0 was due"},
		"delta before its part":         {[]any{started, attempt, delta(0, 0, "x")}, "part 0 of choice 0 has not started"},
		"delta of another part":         {append(open, delta(0, 1, "x")), "part 1 of choice 0 has not started"},
		"delta of another choice":       {append(open, delta(1, 0, "x")), "part 0 of choice 1 has not started"},
		"delta of no part":              {append(open, delta(0, -1, "x")), "part -1 of choice 0 has not started"},
		"delta after its part":          {append(open, end(0, 0), delta(0, 0, "x")), "part 0 of choice 0 is finished"},
		"delta after a restart":         {append(open, &trunklinev1.CompletionRestarted{}, attempt, delta(0, 0, "x")), "has not started"},
		"text for a picture":            {[]any{started, attempt, begin(0, 0, picture), delta(0, 0, "x")}, "text does not fit a part of kind image"},
		"bytes for text":                {append(open, &trunklinev1.PartDelta{Delta: &trunklinev1.PartDelta_Data{}}), "data does not fit"},
		"transcript for text":           {append(open, &trunklinev1.PartDelta{Delta: &trunklinev1.PartDelta_Transcript{}}), "transcript does not fit"},
		"ciphertext for text":           {append(open, &trunklinev1.PartDelta{Delta: &trunklinev1.PartDelta_Encrypted{}}), "encrypted does not fit"},
		"citation for a picture":        {[]any{started, attempt, begin(0, 0, picture), &trunklinev1.PartDelta{Delta: &trunklinev1.PartDelta_Citation{}}}, "citation does not fit"},
		"end before its part":           {[]any{started, attempt, end(0, 0)}, "has not started"},
		"end twice":                     {append(open, end(0, 0), end(0, 0)), "is finished"},
		"arguments for text":            {append(open, &trunklinev1.PartFinished{Reasoning: proto.String("x")}), "arguments for a part of kind text"},
		"choice before its parts":       {append(open, stop(0)), "choice 0 finished while part 0 is not"},
		"choice twice":                  {[]any{started, attempt, stop(0), stop(0)}, "choice 0 is finished"},
		"choice before attempt":         {[]any{started, stop(0)}, "no attempt has started"},
		"part after its choice":         {[]any{started, attempt, stop(0), begin(0, 0, Text(""))}, "choice 0 is finished"},
		"finished before choice":        {append(open, end(0, 0), finished), "finished while choice 0 is not"},
		"finished before attempt":       {[]any{started, finished}, "finished before an attempt"},
		"choices with a gap":            {[]any{started, attempt, stop(1), finished}, "without gaps"},
		"anything after finished":       {[]any{started, attempt, finished, &trunklinev1.Heartbeat{}}, "after finished"},
		"unknown events after finished": {[]any{started, attempt, finished, nil}, "after finished"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := (&gateway{stream: say(nil, row.events...)}).connect(t).Stream(inTime(t), hello).Collect()
			if !errors.Is(err, ErrStreamRuleBroken) || !strings.Contains(err.Error(), row.says) {
				t.Errorf("error is %v, want %q", err, row.says)
			}
		})
	}
}

func TestEventsAreNumberedFromOneWithoutGaps(t *testing.T) {
	for name, numbers := range map[string][]uint32{
		"from nought": {0}, "from two": {2}, "with a gap": {1, 3}, "twice": {1, 1}, "backwards": {1, 2, 1},
	} {
		var collector Collector
		var err error
		for i, event := range events(started, attempt, &trunklinev1.Heartbeat{})[:len(numbers)] {
			event.SequenceNumber = numbers[i]
			err = collector.Add(event)
		}
		if !errors.Is(err, ErrStreamRuleBroken) || !strings.Contains(err.Error(), "was due") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestWhatTheStubsDoNotKnowIsPassedOver(t *testing.T) {
	unknownDelta := &trunklinev1.PartDelta{}
	unknownPart := &trunklinev1.ContentPart{ItemId: proto.String("item_1")}
	g := &gateway{stream: say(nil, nil, started, nil, &trunklinev1.Heartbeat{}, attempt, &trunklinev1.RawEvent{},
		begin(0, 0, Text("Yes")), unknownDelta, nil, end(0, 0),
		begin(0, 1, unknownPart), delta(0, 1, "?"), end(0, 1), stop(0), finished)}

	completion, err := g.connect(t).Stream(inTime(t), hello).Collect()

	if err != nil || TextOf(completion) != "Yes" {
		t.Fatalf("completion %v, error %v", completion, err)
	}
	if part := completion.GetChoices()[0].GetMessage().GetParts()[1]; !proto.Equal(part, unknownPart) {
		t.Errorf("part is %v", part)
	}
}

func TestARestartForgetsThePartsSoFar(t *testing.T) {
	g := &gateway{stream: say(nil, started, attempt, begin(0, 0, Text("Wrong")),
		&trunklinev1.UsageUpdated{Usage: &trunklinev1.Usage{OutputTokens: proto.Int32(9)}},
		&trunklinev1.CompletionRestarted{Attempt: 2},
		&trunklinev1.AttemptStarted{Attempt: 2, Provider: "other", Model: "m", ProviderResponseId: "r"},
		begin(0, 0, Text("Right")), end(0, 0), stop(0), &trunklinev1.CompletionFinished{Attempts: 2})}

	completion, err := g.connect(t).Stream(inTime(t), hello).Collect()

	if err != nil || TextOf(completion) != "Right" || completion.GetProvider() != "other" || completion.GetAttempts() != 2 ||
		completion.GetUsage() != nil {
		t.Errorf("completion %v, error %v", completion, err)
	}
}

func TestATextThatWasGivenOutDoesNotBeginAgain(t *testing.T) {
	restarted, again := &trunklinev1.CompletionRestarted{Attempt: 2}, &trunklinev1.AttemptStarted{Attempt: 2}
	rest := []any{restarted, again, begin(0, 0, Text("Right")), end(0, 0), stop(0), &trunklinev1.CompletionFinished{}}
	for first, want := range map[string]string{"Wrong": "Wrong", "": "Right"} {
		g := &gateway{stream: say(nil, append([]any{started, attempt, begin(0, 0, Text(first))}, rest...)...)}

		got, failed := "", error(nil)
		for text, err := range g.connect(t).Stream(inTime(t), hello).Text() {
			got, failed = got+text, err
		}

		if got != want || (failed == nil) != (first == "") {
			t.Errorf("after %q: text %q, error %v", first, got, failed)
		}
	}
}

func TestTheWholeCompletionOfTheServerIsTakenAsItIs(t *testing.T) {
	whole := answer("Whole.")
	g := &gateway{stream: say(nil, started, attempt, begin(0, 0, Text("Whole.")), end(0, 0), stop(0),
		&trunklinev1.CompletionFinished{Completion: whole})}

	completion, err := g.connect(t).Stream(inTime(t), hello).Collect()

	if err != nil || !proto.Equal(completion, whole) {
		t.Errorf("completion %v, error %v", completion, err)
	}
}

func TestACollectedStreamEqualsTheUnaryCompletion(t *testing.T) {
	at := timestamppb.New(time.Unix(1_700_000_000, 5))
	timing := &trunklinev1.Timing{Total: durationpb.New(time.Second)}
	usage := &trunklinev1.Usage{InputTokens: proto.Int32(3), OutputTokens: proto.Int32(7), RawJson: `{"a":1}`}
	warnings := []*trunklinev1.Warning{{Reason: "PARAMETER_DROPPED", Field: "params.top_k"}}
	limits := []*trunklinev1.RateLimit{{Metric: "requests", Remaining: proto.Int64(9)}}
	citation := &trunklinev1.Citation{Title: "A page", Source: &trunklinev1.Citation_Uri{Uri: "https://a.test"}}
	logprobs := []*trunklinev1.TokenLogprob{{Token: "It", Logprob: -0.1}, {Token: " is", Logprob: -0.2}}
	part := func(signature string, p *trunklinev1.ContentPart) *trunklinev1.ContentPart {
		if signature != "" {
			p.Signature = &signature
		}
		p.OriginProvider = proto.String("fake")
		return p
	}
	reasoning := func(text string, encrypted *string) *trunklinev1.ContentPart {
		return &trunklinev1.ContentPart{Kind: &trunklinev1.ContentPart_Reasoning{
			Reasoning: &trunklinev1.Reasoning{Text: text, Encrypted: encrypted},
		}}
	}
	call := func(call *trunklinev1.ToolCall) *trunklinev1.ContentPart {
		return &trunklinev1.ContentPart{Kind: &trunklinev1.ContentPart_ToolCall{ToolCall: call}}
	}
	sound := func(media *trunklinev1.Media) *trunklinev1.ContentPart {
		return &trunklinev1.ContentPart{Kind: &trunklinev1.ContentPart_Audio{Audio: media}}
	}
	refusal := func(text string) *trunklinev1.ContentPart {
		return &trunklinev1.ContentPart{Kind: &trunklinev1.ContentPart_Refusal{Refusal: &trunklinev1.Refusal{Text: text}}}
	}
	opaque := &trunklinev1.ContentPart{Kind: &trunklinev1.ContentPart_Opaque{Opaque: &trunklinev1.OpaqueBlock{Type: "t", Json: "{}"}}}
	cited := Text("It is 18 °C")
	cited.GetText().Citations = []*trunklinev1.Citation{citation}
	want := &trunklinev1.Completion{
		Id: "cmpl_1", CreateTime: at, Provider: "fake", Model: "m-1", ProviderResponseId: "resp_1",
		ProviderRequestId: "req_1", Usage: usage, Timing: timing, Attempts: 2, ServiceTier: "flex",
		SystemFingerprint: "fp", Warnings: warnings, RateLimits: limits,
		Choices: []*trunklinev1.Choice{
			{
				Index: 0, FinishReason: trunklinev1.FinishReason_FINISH_REASON_TOOL_CALLS, RawFinishReason: "tool_use",
				Logprobs: logprobs,
				Message: &trunklinev1.Message{Role: trunklinev1.Role_ROLE_ASSISTANT, Parts: []*trunklinev1.ContentPart{
					part("sig-nature", reasoning("Let me think", nil)),
					reasoning("", proto.String("cipher-text")),
					cited,
					call(&trunklinev1.ToolCall{
						Id: "call_1", Name: "get_weather", ArgumentsJson: `{"city":"Paris`,
						CompletedArgumentsJson: proto.String(`{}`), Reasoning: proto.String("to know"),
					}),
					opaque,
				}},
			},
			{
				Index: 1, FinishReason: trunklinev1.FinishReason_FINISH_REASON_STOP, StopSequence: proto.String("END"),
				Message: &trunklinev1.Message{Role: trunklinev1.Role_ROLE_ASSISTANT, Parts: []*trunklinev1.ContentPart{
					sound(&trunklinev1.Media{
						MimeType: "audio/mpeg", Transcript: proto.String("hello"),
						Source: &trunklinev1.Media_Data{Data: []byte{0, 1, 2, 3, 4}},
					}),
					refusal("I cannot"),
				}},
			},
			{
				Index: 2, FinishReason: trunklinev1.FinishReason_FINISH_REASON_CONTENT_FILTER,
				Message: &trunklinev1.Message{Role: trunklinev1.Role_ROLE_ASSISTANT},
			},
		},
	}
	g := &gateway{stream: say(nil,
		&trunklinev1.CompletionStarted{CompletionId: "cmpl_1", CreateTime: at},
		&trunklinev1.AttemptStarted{Attempt: 2, Provider: "fake", Model: "m-1", ProviderResponseId: "resp_1"},
		begin(0, 0, part("", reasoning("Let", nil))), delta(0, 0, " me"), delta(0, 0, " think"),
		&trunklinev1.PartDelta{Delta: &trunklinev1.PartDelta_Signature{Signature: "sig-"}},
		&trunklinev1.PartDelta{Delta: &trunklinev1.PartDelta_Signature{Signature: "nature"}},
		end(0, 0),
		begin(0, 1, reasoning("", proto.String("ci"))),
		&trunklinev1.PartDelta{PartIndex: 1, Delta: &trunklinev1.PartDelta_Encrypted{Encrypted: "pher-"}},
		&trunklinev1.PartDelta{PartIndex: 1, Delta: &trunklinev1.PartDelta_Encrypted{Encrypted: "text"}},
		end(0, 1),
		begin(1, 0, sound(&trunklinev1.Media{
			MimeType: "audio/mpeg", Source: &trunklinev1.Media_Data{Data: []byte{0}},
		})),
		&trunklinev1.PartDelta{ChoiceIndex: 1, Delta: &trunklinev1.PartDelta_Data{Data: []byte{1, 2}}},
		begin(0, 2, Text("")),
		&trunklinev1.PartDelta{PartIndex: 2, Delta: &trunklinev1.PartDelta_Text{Text: "It"}, Logprobs: logprobs[:1]},
		&trunklinev1.UsageUpdated{Usage: &trunklinev1.Usage{OutputTokens: proto.Int32(1)}},
		&trunklinev1.PartDelta{PartIndex: 2, Delta: &trunklinev1.PartDelta_Text{Text: " is"}, Logprobs: logprobs[1:]},
		&trunklinev1.PartDelta{ChoiceIndex: 1, Delta: &trunklinev1.PartDelta_Data{Data: []byte{3, 4}}},
		&trunklinev1.PartDelta{ChoiceIndex: 1, Delta: &trunklinev1.PartDelta_Transcript{Transcript: "hel"}},
		&trunklinev1.PartDelta{ChoiceIndex: 1, Delta: &trunklinev1.PartDelta_Transcript{Transcript: "lo"}},
		delta(0, 2, " 18 °C"),
		&trunklinev1.PartDelta{PartIndex: 2, Delta: &trunklinev1.PartDelta_Citation{Citation: citation}},
		end(0, 2), end(1, 0),
		begin(0, 3, call(&trunklinev1.ToolCall{Id: "call_1", Name: "get_weather"})),
		delta(0, 3, `{"city":`), &trunklinev1.Heartbeat{}, delta(0, 3, `"Paris`),
		&trunklinev1.PartFinished{PartIndex: 3, CompletedArgumentsJson: proto.String(`{}`), Reasoning: proto.String("to know")},
		begin(0, 4, opaque), end(0, 4),
		begin(1, 1, refusal("I")), delta(1, 1, " cannot"), end(1, 1),
		&trunklinev1.ChoiceFinished{ChoiceIndex: 2, FinishReason: trunklinev1.FinishReason_FINISH_REASON_CONTENT_FILTER},
		&trunklinev1.ChoiceFinished{
			FinishReason: trunklinev1.FinishReason_FINISH_REASON_TOOL_CALLS, RawFinishReason: "tool_use",
		},
		&trunklinev1.ChoiceFinished{
			ChoiceIndex: 1, FinishReason: trunklinev1.FinishReason_FINISH_REASON_STOP, StopSequence: proto.String("END"),
		},
		&trunklinev1.CompletionFinished{
			Usage: usage, Timing: timing, Warnings: warnings, Attempts: 2, ProviderRequestId: "req_1", ServiceTier: "flex",
			SystemFingerprint: "fp", RateLimits: limits,
		})}
	stream := g.connect(t).Stream(inTime(t), hello)

	got, err := stream.Collect()

	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("collected\n%v\nwant\n%v", got, want)
	}
	if !proto.Equal(stream.Completion(), want) {
		t.Error("collected again, it is another")
	}
}

func TestChoicesStandInTheOrderOfTheirNumbers(t *testing.T) {
	list := []any{started, attempt}
	for index := int32(7); index >= 0; index-- {
		list = append(list, stop(index))
	}
	stream := (&gateway{stream: say(nil, append(list, finished)...)}).connect(t).Stream(inTime(t), hello)
	if _, err := stream.Collect(); err != nil {
		t.Fatal(err)
	}

	for range 20 { // Go shuffles its maps
		for i, choice := range stream.Completion().GetChoices() {
			if choice.GetIndex() != int32(i) {
				t.Fatalf("choice %d stands at %d", choice.GetIndex(), i)
			}
		}
	}
}

func TestEachDeltaCostsTheSameHoweverLongTheAnswer(t *testing.T) {
	var collector Collector
	add := func(event *trunklinev1.StreamCompletionResponse) {
		event.SequenceNumber = collector.last + 1
		if err := collector.Add(event); err != nil {
			t.Fatal(err)
		}
	}
	for _, event := range events(started, attempt, begin(0, 0, Text(""))) {
		add(event)
	}
	piece := events(delta(0, 0, "word "))[0]

	perDelta := testing.AllocsPerRun(100_000, func() { add(piece) })

	if perDelta > 0.1 {
		t.Errorf("%.2f allocations per delta", perDelta)
	}
	if text := TextOf(collector.Completion()); len(text) != 5*100_001 {
		t.Errorf("%d characters", len(text))
	}
}
