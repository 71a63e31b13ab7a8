package trunkline

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// Collector puts the events of one stream together and checks their order. The zero value is ready. Events of a kind that
// this version does not know are passed over.
type Collector struct {
	last     uint32
	started  *trunklinev1.CompletionStarted
	attempt  *trunklinev1.AttemptStarted
	choices  map[int32]*choice
	usage    *trunklinev1.Usage
	finished *trunklinev1.CompletionFinished
}

type choice struct {
	parts    []*part
	logprobs []*trunklinev1.TokenLogprob
	finished *trunklinev1.ChoiceFinished
}

// part holds a part as it began and the pieces that followed.
type part struct {
	begin                                  *trunklinev1.ContentPart
	text, signature, encrypted, transcript strings.Builder
	data                                   []byte
	citations                              []*trunklinev1.Citation
	finished                               *trunklinev1.PartFinished
}

// Add takes the next event. The error is [ErrStreamRuleBroken] and names the event and what is wrong with it.
func (c *Collector) Add(event *trunklinev1.StreamCompletionResponse) error {
	if problem := c.take(event); problem != "" {
		return streamError(ErrStreamRuleBroken, codes.Internal, c.started.GetCompletionId(),
			"the server broke the rules of a stream: event %d: %s", event.GetSequenceNumber(), problem)
	}
	c.last = event.GetSequenceNumber()
	return nil
}

// ended says how a stream ended that the server closed with OK: io.EOF if it was complete.
func (c *Collector) ended() error {
	if c.finished == nil {
		return streamError(ErrStreamIncomplete, codes.Unavailable, c.started.GetCompletionId(),
			"the stream ended after event %d without finished; what arrived is not the whole answer", c.last)
	}
	return io.EOF
}

func (c *Collector) take(event *trunklinev1.StreamCompletionResponse) (problem string) {
	_, starts := event.GetEvent().(*trunklinev1.StreamCompletionResponse_Started)
	switch {
	case c.finished != nil:
		return "came after finished"
	case event.GetSequenceNumber() != c.last+1:
		return fmt.Sprintf("number %d was due", c.last+1)
	case event.GetEvent() == nil:
		return ""
	case starts != (c.started == nil):
		return "started comes first, and once"
	}
	switch e := event.GetEvent().(type) {
	case *trunklinev1.StreamCompletionResponse_Started:
		c.started, c.choices = e.Started, map[int32]*choice{}
	case *trunklinev1.StreamCompletionResponse_AttemptStarted:
		if c.attempt != nil {
			return "an attempt started during another, without restarted"
		}
		c.attempt = e.AttemptStarted
	case *trunklinev1.StreamCompletionResponse_Restarted:
		if c.attempt == nil {
			return "restarted before an attempt started"
		}
		c.attempt, c.usage, c.choices = nil, nil, map[int32]*choice{}
	case *trunklinev1.StreamCompletionResponse_PartStarted:
		return c.partStarted(e.PartStarted)
	case *trunklinev1.StreamCompletionResponse_PartDelta:
		return c.partDelta(e.PartDelta)
	case *trunklinev1.StreamCompletionResponse_PartFinished:
		return c.partFinished(e.PartFinished)
	case *trunklinev1.StreamCompletionResponse_ChoiceFinished:
		return c.choiceFinished(e.ChoiceFinished)
	case *trunklinev1.StreamCompletionResponse_UsageUpdated:
		c.usage = e.UsageUpdated.GetUsage()
	case *trunklinev1.StreamCompletionResponse_Finished:
		return c.finish(e.Finished)
	}
	return ""
}

func (c *Collector) finish(e *trunklinev1.CompletionFinished) (problem string) {
	if c.attempt == nil {
		return "finished before an attempt started"
	}
	for index, choice := range c.choices {
		if choice.finished == nil {
			return fmt.Sprintf("finished while choice %d is not", index)
		}
		if index < 0 || int(index) >= len(c.choices) {
			return "choices are not numbered from 0 without gaps"
		}
	}
	c.finished = e
	return ""
}

func (c *Collector) partStarted(e *trunklinev1.PartStarted) (problem string) {
	choice, problem := c.openChoice(e.GetChoiceIndex())
	if problem != "" {
		return problem
	}
	if int(e.GetPartIndex()) != len(choice.parts) {
		return fmt.Sprintf("part %d of choice %d was due", len(choice.parts), e.GetChoiceIndex())
	}
	choice.parts = append(choice.parts, &part{begin: e.GetPart()})
	return ""
}

func (c *Collector) partDelta(e *trunklinev1.PartDelta) (problem string) {
	p, problem := c.openPart(e.GetChoiceIndex(), e.GetPartIndex())
	if problem != "" {
		return problem
	}
	if !p.append(e) {
		return fmt.Sprintf("a %s does not fit a part of kind %s", member(e, "delta"), member(p.begin, "kind"))
	}
	choice := c.choices[e.GetChoiceIndex()]
	choice.logprobs = append(choice.logprobs, e.GetLogprobs()...)
	return ""
}

func (c *Collector) partFinished(e *trunklinev1.PartFinished) (problem string) {
	p, problem := c.openPart(e.GetChoiceIndex(), e.GetPartIndex())
	if problem != "" {
		return problem
	}
	if (e.CompletedArgumentsJson != nil || e.Reasoning != nil) && p.begin.GetKind() != nil && p.begin.GetToolCall() == nil {
		return fmt.Sprintf("arguments for a part of kind %s", member(p.begin, "kind"))
	}
	p.finished = e
	return ""
}

func (c *Collector) choiceFinished(e *trunklinev1.ChoiceFinished) (problem string) {
	choice, problem := c.openChoice(e.GetChoiceIndex())
	if problem != "" {
		return problem
	}
	if i := slices.IndexFunc(choice.parts, func(p *part) bool { return p.finished == nil }); i >= 0 {
		return fmt.Sprintf("choice %d finished while part %d is not", e.GetChoiceIndex(), i)
	}
	choice.finished = e
	return ""
}

func (c *Collector) openChoice(index int32) (_ *choice, problem string) {
	if c.attempt == nil {
		return nil, "no attempt has started"
	}
	if c.choices[index] == nil {
		c.choices[index] = &choice{}
	}
	if c.choices[index].finished != nil {
		return nil, fmt.Sprintf("choice %d is finished", index)
	}
	return c.choices[index], ""
}

func (c *Collector) openPart(choiceIndex, index int32) (_ *part, problem string) {
	choice := c.choices[choiceIndex]
	switch {
	case choice == nil || index < 0 || int(index) >= len(choice.parts):
		return nil, fmt.Sprintf("part %d of choice %d has not started", index, choiceIndex)
	case choice.parts[index].finished != nil:
		return nil, fmt.Sprintf("part %d of choice %d is finished", index, choiceIndex)
	}
	return choice.parts[index], ""
}

// append tells whether the delta fits the kind of the part. Kinds that this version does not know take anything.
func (p *part) append(e *trunklinev1.PartDelta) bool {
	unknown := p.begin.GetKind() == nil
	switch d := e.GetDelta().(type) {
	case *trunklinev1.PartDelta_Text:
		p.text.WriteString(d.Text)
		return unknown || textField(p.begin) != nil
	case *trunklinev1.PartDelta_Data:
		p.data = append(p.data, d.Data...)
		return unknown || media(p.begin) != nil
	case *trunklinev1.PartDelta_Transcript:
		p.transcript.WriteString(d.Transcript)
		return unknown || media(p.begin) != nil
	case *trunklinev1.PartDelta_Citation:
		p.citations = append(p.citations, d.Citation)
		return unknown || p.begin.GetText() != nil
	case *trunklinev1.PartDelta_Encrypted:
		p.encrypted.WriteString(d.Encrypted)
		return unknown || p.begin.GetReasoning() != nil
	case *trunklinev1.PartDelta_Signature:
		p.signature.WriteString(d.Signature)
	}
	return true
}

// member is the name of the field that is set in a oneof.
func member(m proto.Message, oneof protoreflect.Name) protoreflect.Name {
	r := m.ProtoReflect()
	return r.WhichOneof(r.Descriptor().Oneofs().ByName(oneof)).Name()
}

// textField is where text is appended to in a part of this kind; nil if the kind has no text.
func textField(p *trunklinev1.ContentPart) *string {
	switch kind := p.GetKind().(type) {
	case *trunklinev1.ContentPart_Text:
		return &kind.Text.Text
	case *trunklinev1.ContentPart_Reasoning:
		return &kind.Reasoning.Text
	case *trunklinev1.ContentPart_Refusal:
		return &kind.Refusal.Text
	case *trunklinev1.ContentPart_ToolCall:
		return &kind.ToolCall.ArgumentsJson
	}
	return nil
}

func media(p *trunklinev1.ContentPart) *trunklinev1.Media {
	for _, m := range []*trunklinev1.Media{p.GetImage(), p.GetAudio(), p.GetVideo(), p.GetDocument()} {
		if m != nil {
			return m
		}
	}
	return nil
}

// textOf is the text that an event just added to the answer of the first choice.
func (c *Collector) textOf(event *trunklinev1.StreamCompletionResponse) string {
	if begun := event.GetPartStarted(); begun != nil && begun.GetChoiceIndex() == 0 {
		return begun.GetPart().GetText().GetText()
	}
	delta := event.GetPartDelta()
	if delta == nil || delta.GetChoiceIndex() != 0 || c.choices[0].parts[delta.GetPartIndex()].begin.GetText() == nil {
		return ""
	}
	return delta.GetText()
}

// Completion is what has been collected so far; the whole answer after CompletionFinished.
func (c *Collector) Completion() *trunklinev1.Completion {
	if whole := c.finished.GetCompletion(); whole != nil {
		return proto.Clone(whole).(*trunklinev1.Completion)
	}
	completion := &trunklinev1.Completion{
		Id: c.started.GetCompletionId(), CreateTime: c.started.GetCreateTime(),
		Provider: c.attempt.GetProvider(), Model: c.attempt.GetModel(),
		ProviderResponseId: c.attempt.GetProviderResponseId(), Attempts: c.attempt.GetAttempt(), Usage: c.usage,
	}
	if end := c.finished; end != nil {
		if end.GetUsage() != nil {
			completion.Usage = end.GetUsage()
		}
		completion.Timing, completion.Warnings = end.GetTiming(), end.GetWarnings()
		completion.Attempts, completion.RateLimits = end.GetAttempts(), end.GetRateLimits()
		completion.ProviderRequestId = end.GetProviderRequestId()
		completion.ServiceTier, completion.SystemFingerprint = end.GetServiceTier(), end.GetSystemFingerprint()
	}
	for _, index := range slices.Sorted(maps.Keys(c.choices)) {
		completion.Choices = append(completion.Choices, c.choices[index].build(index))
	}
	return completion
}

func (c *choice) build(index int32) *trunklinev1.Choice {
	message := &trunklinev1.Message{Role: trunklinev1.Role_ROLE_ASSISTANT}
	for _, p := range c.parts {
		message.Parts = append(message.Parts, p.build())
	}
	built := &trunklinev1.Choice{Index: index, Message: message, Logprobs: c.logprobs}
	if c.finished != nil {
		built.FinishReason, built.RawFinishReason = c.finished.GetFinishReason(), c.finished.GetRawFinishReason()
		built.StopSequence = c.finished.StopSequence
	}
	return built
}

func (p *part) build() *trunklinev1.ContentPart {
	built := proto.Clone(p.begin).(*trunklinev1.ContentPart)
	if field := textField(built); field != nil {
		*field += p.text.String()
	}
	if text := built.GetText(); text != nil {
		text.Citations = append(text.Citations, p.citations...)
	}
	if m := media(built); m != nil {
		if p.data != nil {
			m.Source = &trunklinev1.Media_Data{Data: slices.Concat(m.GetData(), p.data)}
		}
		join(&m.Transcript, &p.transcript)
	}
	if reasoning := built.GetReasoning(); reasoning != nil {
		join(&reasoning.Encrypted, &p.encrypted)
	}
	join(&built.Signature, &p.signature)
	if call := built.GetToolCall(); call != nil && p.finished != nil {
		call.CompletedArgumentsJson = p.finished.CompletedArgumentsJson
		call.Reasoning = p.finished.Reasoning
	}
	return built
}

// join appends pieces to an optional field, which stays absent if there are none.
func join(field **string, pieces *strings.Builder) {
	if pieces.Len() > 0 {
		whole := pieces.String()
		if *field != nil {
			whole = **field + whole
		}
		*field = &whole
	}
}
