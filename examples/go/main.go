// Four short programs that call a gateway: go run . [complete] [stream] [tool_call] [rate_limit]
//
// TRUNKLINE_ADDRESS says where the gateway is; TRUNKLINE_MODEL names a model to ask instead of the fake ones, which answer
// without a key. Without arguments all four run.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/trunkline/trunkline/clients/go/trunkline"
	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

var programs = []struct {
	name, model string
	run         func(ctx context.Context, client *trunkline.Client, model string) error
}{
	{"complete", "fake/echo", complete},
	{"stream", "fake/echo", stream},
	{"tool_call", "fake/tool", toolCall},
	{"rate_limit", "fake/rate-limit", rateLimit},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(chosen []string) error {
	client, err := trunkline.New()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	for _, program := range programs {
		if len(chosen) > 0 && !slices.Contains(chosen, program.name) {
			continue
		}
		fmt.Println("#", program.name)
		model := cmp.Or(os.Getenv("TRUNKLINE_MODEL"), program.model)
		if err := program.run(context.Background(), client, model); err != nil {
			return fmt.Errorf("%s: %w", program.name, err)
		}
	}
	return nil
}

func printFinish(completion *trunklinev1.Completion) {
	reason := completion.GetChoices()[0].GetFinishReason().String()
	fmt.Println("finish:", strings.TrimPrefix(reason, "FINISH_REASON_"))
}
