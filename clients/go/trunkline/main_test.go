package trunkline

import (
	"context"
	"log"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// TestMain serves what the examples in this folder, which the README shows, print their output from.
func TestMain(m *testing.M) {
	g := &gateway{create: demo, stream: sayWords("You said: One two three.")}
	address, stop, err := g.serve()
	if err != nil {
		log.Fatal(err)
	}
	for name, value := range map[string]string{"TRUNKLINE_ADDRESS": address, "TRUNKLINE_API_KEY": ""} {
		if err := os.Setenv(name, value); err != nil {
			log.Fatal(err)
		}
	}
	status := m.Run()
	stop()
	os.Exit(status)
}

// demo answers as the gateway's fake models do.
func demo(ctx context.Context, request *trunklinev1.CreateCompletionRequest) (*trunklinev1.Completion, error) {
	messages := request.GetSpec().GetMessages()
	result := messages[len(messages)-1].GetParts()[0].GetToolResult()
	switch model := request.GetSpec().GetModel(); {
	case result != nil:
		return answer("The tool said: " + result.GetParts()[0].GetText().GetText()), nil
	case model == "fake/tool":
		call := &trunklinev1.ToolCall{Id: "call_1", Name: "get_weather", ArgumentsJson: `{"city":"Paris"}`}
		completion := answer("Let me look that up.")
		completion.Choices[0].FinishReason = trunklinev1.FinishReason_FINISH_REASON_TOOL_CALLS
		completion.Choices[0].Message.Parts = append(completion.Choices[0].Message.Parts,
			&trunklinev1.ContentPart{Kind: &trunklinev1.ContentPart_ToolCall{ToolCall: call}})
		return completion, nil
	case model == "fake/json":
		return answer(`{"name":"text","rivers":["text"]}`), nil
	case model == "fake/rate-limit":
		return nil, failure(codes.ResourceExhausted, "LLM_RATE_LIMITED", "slow down", retryIn(200*time.Millisecond))
	default:
		return echo(ctx, request)
	}
}

func TestTheReadmeShowsCodeThatRuns(t *testing.T) {
	examples := source(t, "example_test.go")
	blocks := strings.Split(source(t, "../README.md"), "```go\n")[1:]
	if len(blocks) != 6 {
		t.Errorf("%d blocks of code", len(blocks))
	}
	for _, block := range blocks {
		code, _, _ := strings.Cut(block, "```")
		if !strings.Contains(examples, code) {
			t.Errorf("not among the examples:\n%s", code)
		}
	}
}

// source is a file without indentation.
func source(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(content), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.Join(lines, "\n")
}
