package trunkline

import (
	"net/http"
	"strings"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// Spec asks a model, e.g. "openai/gpt-5.2", to go on with a conversation. Its other fields can be set as needed.
func Spec(model string, messages ...*trunklinev1.Message) *trunklinev1.CompletionSpec {
	return &trunklinev1.CompletionSpec{
		Target: &trunklinev1.CompletionSpec_Model{Model: model}, Messages: messages,
	}
}

// System is a message of instructions.
func System(text string) *trunklinev1.Message {
	return message(trunklinev1.Role_ROLE_SYSTEM, text, nil)
}

// User is a message of the person or program that asks: a text (empty: none) and whatever follows it.
func User(text string, parts ...*trunklinev1.ContentPart) *trunklinev1.Message {
	return message(trunklinev1.Role_ROLE_USER, text, parts)
}

// Assistant is a message of the model. To go on after an answer, send back the message of its choice instead.
func Assistant(text string, parts ...*trunklinev1.ContentPart) *trunklinev1.Message {
	return message(trunklinev1.Role_ROLE_ASSISTANT, text, parts)
}

// ToolResult is what a tool answered to a call.
func ToolResult(call *trunklinev1.ToolCall, text string, parts ...*trunklinev1.ContentPart) *trunklinev1.Message {
	return toolResult(call, false, text, parts)
}

// ToolFailure is how a tool failed.
func ToolFailure(call *trunklinev1.ToolCall, text string) *trunklinev1.Message {
	return toolResult(call, true, text, nil)
}

func toolResult(call *trunklinev1.ToolCall, failed bool, text string, parts []*trunklinev1.ContentPart) *trunklinev1.Message {
	result := &trunklinev1.ToolResult{
		ToolCallId: call.GetId(), Name: call.GetName(), Parts: withText(text, parts), IsError: failed,
	}
	part := &trunklinev1.ContentPart{Kind: &trunklinev1.ContentPart_ToolResult{ToolResult: result}}
	return message(trunklinev1.Role_ROLE_TOOL, "", []*trunklinev1.ContentPart{part})
}

func message(role trunklinev1.Role, text string, parts []*trunklinev1.ContentPart) *trunklinev1.Message {
	return &trunklinev1.Message{Role: role, Parts: withText(text, parts)}
}

func withText(text string, parts []*trunklinev1.ContentPart) []*trunklinev1.ContentPart {
	if text == "" {
		return parts
	}
	return append([]*trunklinev1.ContentPart{Text(text)}, parts...)
}

// Text is a part of text, for what comes after the first, or to set a cache mark on.
func Text(text string) *trunklinev1.ContentPart {
	return &trunklinev1.ContentPart{Kind: &trunklinev1.ContentPart_Text{Text: &trunklinev1.Text{Text: text}}}
}

// Image is a picture in the message. Its type is recognized by its first bytes.
func Image(data []byte) *trunklinev1.ContentPart {
	return &trunklinev1.ContentPart{Kind: &trunklinev1.ContentPart_Image{Image: inline(data)}}
}

// ImageURL is a picture that the provider fetches (https:, gs:, s3:).
func ImageURL(url string) *trunklinev1.ContentPart {
	return &trunklinev1.ContentPart{Kind: &trunklinev1.ContentPart_Image{Image: fetched(url)}}
}

// Document is a PDF or another file in the message. Its type is recognized by its first bytes.
func Document(data []byte, filename string) *trunklinev1.ContentPart {
	media := inline(data)
	if filename != "" {
		media.Filename = &filename
	}
	return &trunklinev1.ContentPart{Kind: &trunklinev1.ContentPart_Document{Document: media}}
}

// DocumentURL is a PDF or another file that the provider fetches (https:, gs:, s3:).
func DocumentURL(url string) *trunklinev1.ContentPart {
	return &trunklinev1.ContentPart{Kind: &trunklinev1.ContentPart_Document{Document: fetched(url)}}
}

func inline(data []byte) *trunklinev1.Media {
	mimeType, _, _ := strings.Cut(http.DetectContentType(data), ";")
	return &trunklinev1.Media{Source: &trunklinev1.Media_Data{Data: data}, MimeType: mimeType}
}

func fetched(url string) *trunklinev1.Media {
	return &trunklinev1.Media{Source: &trunklinev1.Media_Uri{Uri: url}}
}

// Function is a tool of the caller. The schema of its arguments is the text of a JSON schema of an object; empty means no
// arguments. [FunctionOf] derives it from a struct.
func Function(name, description, schema string) *trunklinev1.Tool {
	return &trunklinev1.Tool{Kind: &trunklinev1.Tool_Function{Function: &trunklinev1.FunctionTool{
		Name: name, Description: description, ParametersJsonSchema: schema,
	}}}
}

// TextOf is the text of an answer's first choice, without reasoning and refusals.
func TextOf(completion *trunklinev1.Completion) string {
	var text strings.Builder
	for _, part := range MessageOf(completion).GetParts() {
		text.WriteString(part.GetText().GetText())
	}
	return text.String()
}

// ToolCallsOf are the calls in an answer's first choice that the caller has to answer.
func ToolCallsOf(completion *trunklinev1.Completion) (calls []*trunklinev1.ToolCall) {
	for _, part := range MessageOf(completion).GetParts() {
		if call := part.GetToolCall(); call != nil && !call.GetProviderExecuted() {
			calls = append(calls, call)
		}
	}
	return calls
}

// MessageOf is the message of an answer's first choice, to be sent back to go on. Nil if there is no choice.
func MessageOf(completion *trunklinev1.Completion) *trunklinev1.Message {
	if len(completion.GetChoices()) == 0 {
		return nil
	}
	return completion.GetChoices()[0].GetMessage()
}
