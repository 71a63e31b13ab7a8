package trunkline_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/trunkline/trunkline/clients/go/trunkline"
	trunklinev1alpha "github.com/trunkline/trunkline/clients/go/trunkline/v1alpha"
)

func ExampleClient_Complete() {
	ctx := context.Background()
	client, err := trunkline.New() // TRUNKLINE_ADDRESS or 127.0.0.1:50051, TRUNKLINE_API_KEY
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	completion, err := client.Complete(ctx, trunkline.Spec("fake/echo", trunkline.User("Say hello.")))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(trunkline.TextOf(completion))
	// Output: You said: Say hello.
}

func ExampleClient_Stream() {
	ctx := context.Background()
	client, err := trunkline.New()
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	stream := client.Stream(ctx, trunkline.Spec("fake/echo", trunkline.User("One two three.")))
	for text, err := range stream.Text() { // leaving the loop cancels the call
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(text)
	}
	fmt.Println()
	fmt.Println(stream.Completion().GetChoices()[0].GetFinishReason())
	// Output:
	// You said: One two three.
	// FINISH_REASON_STOP
}

// Place holds the arguments of get_weather.
type Place struct {
	City string `json:"city" jsonschema:"name of the city"`
}

func ExampleFunctionOf() {
	ctx := context.Background()
	client, err := trunkline.New()
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	tool, err := trunkline.FunctionOf[Place]("get_weather", "Tells the weather in a city.")
	if err != nil {
		log.Fatal(err)
	}
	spec := trunkline.Spec("fake/tool", trunkline.User("What is the weather in Paris?"))
	spec.Tools = append(spec.Tools, tool)
	completion, err := client.Complete(ctx, spec)
	if err != nil {
		log.Fatal(err)
	}
	spec.Messages = append(spec.Messages, trunkline.MessageOf(completion))
	for _, call := range trunkline.ToolCallsOf(completion) {
		place, err := trunkline.ArgumentsOf[Place](call)
		if err != nil {
			log.Fatal(err)
		}
		spec.Messages = append(spec.Messages, trunkline.ToolResult(call, "18 degrees in "+place.City))
	}
	completion, err = client.Complete(ctx, spec)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(trunkline.TextOf(completion))
	// Output: The tool said: 18 degrees in Paris
}

func ExampleParse() {
	ctx := context.Background()
	client, err := trunkline.New()
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	type City struct {
		Name   string   `json:"name"`
		Rivers []string `json:"rivers" jsonschema:"that flow through it"`
	}
	city, _, err := trunkline.Parse[City](ctx, client, trunkline.Spec("fake/json", trunkline.User("Tell me about Paris.")))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(city.Name, city.Rivers)
	// Output: text [text]
}

func ExampleError() {
	ctx := context.Background()
	client, err := trunkline.New()
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	spec := trunkline.Spec("fake/rate-limit", trunkline.User("Try again."))

	_, err = client.Complete(ctx, spec)
	if failed := new(trunkline.Error); errors.As(err, &failed) {
		fmt.Println(failed.Reason, failed.Retryable, failed.RetryAfter)
	}
	fmt.Println(errors.Is(err, trunkline.ErrRateLimited))
	// Output:
	// LLM_RATE_LIMITED true 200ms
	// true
}

func ExampleClient_Conn() {
	ctx := context.Background()
	client, err := trunkline.New()
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	traces := trunklinev1alpha.NewTraceServiceClient(client.Conn())
	page, err := traces.ListTraces(ctx, &trunklinev1alpha.ListTracesRequest{Filter: &trunklinev1alpha.TraceFilter{
		Provider: "openai",
		Status:   &trunklinev1alpha.TraceFilter_Failed{Failed: true},
	}})
	if err != nil {
		log.Fatal(err)
	}
	for _, trace := range page.GetTraces() {
		fmt.Println(trace.GetName(), trace.GetModel(), trace.GetStatus().GetReason())
	}
	// Output: traces/cmpl_1 gpt-5.2 LLM_RATE_LIMITED
}
