package main

import (
	"context"
	"fmt"

	"github.com/trunkline/trunkline/clients/go/trunkline"
)

// stream prints the answer as it is made.
func stream(ctx context.Context, client *trunkline.Client, model string) error {
	answer := client.Stream(ctx, trunkline.Spec(model, trunkline.User("One two three.")))
	for text, err := range answer.Text() {
		if err != nil {
			return err
		}
		fmt.Print(text)
	}
	fmt.Println()
	printFinish(answer.Completion())
	return nil
}
