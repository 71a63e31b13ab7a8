package trunkline

import (
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

func TestBuildersSayWhatTheContractSays(t *testing.T) {
	call := &trunklinev1.ToolCall{Id: "call_1", Name: "get_weather"}
	for want, got := range map[string]proto.Message{
		`role: ROLE_SYSTEM parts {text {text: "Be brief."}}`:                                                                        System("Be brief."),
		`role: ROLE_USER parts {text {text: "Hi"}}`:                                                                                 User("Hi"),
		`role: ROLE_USER parts {text {text: "a"}} parts {text {text: "b"}}`:                                                         User("a", Text("b")),
		`role: ROLE_ASSISTANT parts {text {text: "Hello."}}`:                                                                        Assistant("Hello."),
		`role: ROLE_USER parts {image {uri: "https://a.test/b.png"}}`:                                                               User("", ImageURL("https://a.test/b.png")),
		`image {data: "\x89PNG\r\n\x1a\n" mime_type: "image/png"}`:                                                                  Image([]byte("\x89PNG\r\n\x1a\n")),
		`image {data: "\xff\xd8\xff" mime_type: "image/jpeg"}`:                                                                      Image([]byte("\xff\xd8\xff")),
		`document {data: "%PDF-1.7" mime_type: "application/pdf" filename: "a.pdf"}`:                                                Document([]byte("%PDF-1.7"), "a.pdf"),
		`document {data: "Notes" mime_type: "text/plain"}`:                                                                          Document([]byte("Notes"), ""),
		`document {uri: "gs://bucket/a.pdf"}`:                                                                                       DocumentURL("gs://bucket/a.pdf"),
		`function {name: "now" description: "Tells the time"}`:                                                                      Function("now", "Tells the time", ""),
		`model: "fake/echo" messages {role: ROLE_USER parts {text {text: "Hi"}}}`:                                                   Spec("fake/echo", User("Hi")),
		`role: ROLE_TOOL parts {tool_result {tool_call_id: "call_1" name: "get_weather" parts {text {text: "18"}}}}`:                ToolResult(call, "18"),
		`role: ROLE_TOOL parts {tool_result {tool_call_id: "call_1" name: "get_weather" is_error: true parts {text {text: "no"}}}}`: ToolFailure(call, "no"),
		`role: ROLE_TOOL parts {tool_result {tool_call_id: "call_1" name: "get_weather"}}`:                                          ToolResult(call, ""),
	} {
		expected := got.ProtoReflect().New().Interface()
		if err := prototext.Unmarshal([]byte(want), expected); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, expected) {
			t.Errorf("built %v, want %s", got, want)
		}
	}
}

func TestOnlyCallsThatTheCallerMustAnswerAreGiven(t *testing.T) {
	tool := func(id string, provider bool) *trunklinev1.ContentPart {
		return &trunklinev1.ContentPart{Kind: &trunklinev1.ContentPart_ToolCall{
			ToolCall: &trunklinev1.ToolCall{Id: id, ProviderExecuted: provider},
		}}
	}
	completion := &trunklinev1.Completion{Choices: []*trunklinev1.Choice{
		{Message: Assistant("Looking.", tool("call_1", false), tool("search", true), tool("call_2", false))},
	}}

	calls := ToolCallsOf(completion)

	if len(calls) != 2 || calls[0].GetId() != "call_1" || calls[1].GetId() != "call_2" {
		t.Errorf("calls are %v", calls)
	}
	if TextOf(completion) != "Looking." || MessageOf(completion) != completion.GetChoices()[0].GetMessage() {
		t.Errorf("text is %q", TextOf(completion))
	}
}

func TestAnAnswerWithoutChoicesHasNothing(t *testing.T) {
	none := &trunklinev1.Completion{}
	if TextOf(none) != "" || ToolCallsOf(none) != nil || MessageOf(none) != nil {
		t.Error("something came of nothing")
	}
}
