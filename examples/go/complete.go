package main

import (
	"context"
	"fmt"

	"github.com/trunkline/trunkline/clients/go/trunkline"
)

// complete asks for the whole answer at once.
func complete(ctx context.Context, client *trunkline.Client, model string) error {
	completion, err := client.Complete(ctx, trunkline.Spec(model, trunkline.User("Say hello.")))
	if err != nil {
		return err
	}
	fmt.Println(trunkline.TextOf(completion))
	printFinish(completion)
	usage := completion.GetUsage()
	fmt.Printf("tokens: %d in, %d out\n", usage.GetInputTokens(), usage.GetOutputTokens())
	return nil
}
