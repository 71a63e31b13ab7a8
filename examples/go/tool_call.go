package main

import (
	"context"
	"fmt"

	"github.com/trunkline/trunkline/clients/go/trunkline"
)

// Place holds the arguments of get_weather.
type Place struct {
	City string `json:"city" jsonschema:"name of the city"`
}

// toolCall lets the model call a function and go on with what it returns.
func toolCall(ctx context.Context, client *trunkline.Client, model string) error {
	getWeather, err := trunkline.FunctionOf[Place]("get_weather", "Tells the weather in a city.")
	if err != nil {
		return err
	}
	spec := trunkline.Spec(model, trunkline.User("What is the weather in Paris?"))
	spec.Tools = append(spec.Tools, getWeather)
	for {
		completion, err := client.Complete(ctx, spec)
		if err != nil {
			return err
		}
		calls := trunkline.ToolCallsOf(completion)
		if len(calls) == 0 {
			fmt.Println(trunkline.TextOf(completion))
			printFinish(completion)
			return nil
		}
		spec.Messages = append(spec.Messages, trunkline.MessageOf(completion))
		for _, call := range calls {
			fmt.Println("call:", call.GetName(), call.GetArgumentsJson())
			place, err := trunkline.ArgumentsOf[Place](call)
			if err != nil {
				spec.Messages = append(spec.Messages, trunkline.ToolFailure(call, err.Error()))
				continue
			}
			spec.Messages = append(spec.Messages, trunkline.ToolResult(call, weatherIn(place)))
		}
	}
}

// weatherIn would ask a service; here it is always the same.
func weatherIn(Place) string { return "18 degrees" }
