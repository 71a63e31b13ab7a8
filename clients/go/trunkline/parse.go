package trunkline

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
	"google.golang.org/protobuf/proto"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

// ParseError is an answer, or the arguments of a tool call, that is not of the type asked for.
type ParseError struct {
	// Problem says what does not fit.
	Problem string
	// Text is what the model said.
	Text string
	// Completion is the whole answer. Nil for the arguments of a tool call.
	Completion *trunklinev1.Completion
}

// Error says what does not fit.
func (e *ParseError) Error() string { return "trunkline: the answer does not fit: " + e.Problem }

// Parse asks for an answer of type T, a struct with json tags, and returns it with the completion it came in. A tag
// `jsonschema:"..."` describes a field to the model. An answer that does not fit is a [*ParseError]. A spec that has a JSON
// schema of its own keeps it, and T only receives what follows it. Nothing of the caller's is changed.
func Parse[T any](
	ctx context.Context, client *Client, spec *trunklinev1.CompletionSpec, opts ...RequestOption,
) (value T, completion *trunklinev1.Completion, err error) {
	schema, spec, err := asking[T](spec)
	if err != nil {
		return value, nil, err
	}
	if completion, err = client.Complete(ctx, spec, opts...); err != nil {
		return value, nil, err
	}
	if problem := decode(schema, TextOf(completion), &value); problem != "" {
		return *new(T), completion, &ParseError{
			Problem: cause(completion, problem), Text: TextOf(completion), Completion: completion,
		}
	}
	return value, completion, nil
}

// asking returns the schema that the answer must follow, and the spec that asks for it.
func asking[T any](spec *trunklinev1.CompletionSpec) (*jsonschema.Schema, *trunklinev1.CompletionSpec, error) {
	if text := spec.GetResponseFormat().GetJsonSchema().GetJsonSchema(); text != "" {
		schema := new(jsonschema.Schema)
		if err := json.Unmarshal([]byte(text), schema); err != nil {
			return nil, nil, fmt.Errorf("trunkline: spec.response_format.json_schema: %w", err)
		}
		return schema, spec, nil
	}
	schema, text, err := schemaOf[T]()
	if err != nil {
		return nil, nil, err
	}
	format := &trunklinev1.JsonSchemaFormat{JsonSchema: text}
	if closed(schema) { // providers refuse a strict schema that leaves something open
		format.Strict = proto.Bool(true)
	}
	spec = proto.Clone(spec).(*trunklinev1.CompletionSpec)
	spec.ResponseFormat = &trunklinev1.ResponseFormat{
		Format: &trunklinev1.ResponseFormat_JsonSchema{JsonSchema: format},
	}
	return schema, spec, nil
}

// FunctionOf is a tool whose arguments are the fields of the struct T.
func FunctionOf[T any](name, description string) (*trunklinev1.Tool, error) {
	_, text, err := schemaOf[T]()
	if err != nil {
		return nil, err
	}
	return Function(name, description, text), nil
}

// ArgumentsOf reads the arguments of a call into T. Arguments that do not fit are a [*ParseError], which makes a good
// [ToolFailure].
func ArgumentsOf[T any](call *trunklinev1.ToolCall) (value T, err error) {
	schema, _, err := schemaOf[T]()
	if err != nil {
		return value, err
	}
	text := call.GetArgumentsJson()
	if strings.TrimSpace(text) == "" { // what some models say for no arguments
		text = "{}"
	}
	if problem := decode(schema, text, &value); problem != "" {
		return *new(T), &ParseError{Problem: call.GetName() + ": " + problem, Text: call.GetArgumentsJson()}
	}
	return value, nil
}

func schemaOf[T any]() (*jsonschema.Schema, string, error) {
	kind := reflect.TypeFor[T]()
	if kind.Kind() != reflect.Struct {
		return nil, "", fmt.Errorf("trunkline: no schema of %s: providers want an object, so use a struct", kind)
	}
	schema, err := jsonschema.For[T](nil)
	if err != nil {
		return nil, "", fmt.Errorf("trunkline: no schema of %s: %w", kind, err)
	}
	refuseNullLists(schema)
	text, err := json.Marshal(schema)
	return schema, string(text), err
}

// refuseNullLists: a nil slice encodes as null, but a model should say [].
func refuseNullLists(schema *jsonschema.Schema) {
	if len(schema.Types) == 2 && schema.Types[0] == "null" && schema.Types[1] == "array" {
		schema.Types, schema.Type = nil, "array"
	}
	for _, inner := range inside(schema) {
		refuseNullLists(inner)
	}
}

// closed tells whether every object in a schema needs all its properties and allows no others.
func closed(schema *jsonschema.Schema) bool {
	object := schema.Type == "object" || len(schema.Types) == 2 && schema.Types[1] == "object"
	// What allows nothing is {"not": {}}; a map allows what its values are.
	if object && (schema.AdditionalProperties == nil || schema.AdditionalProperties.Not == nil ||
		len(schema.Required) != len(schema.Properties)) {
		return false
	}
	for _, inner := range inside(schema) {
		if !closed(inner) || inner.Type == "" && inner.Types == nil {
			return false
		}
	}
	return true
}

func inside(schema *jsonschema.Schema) (inner []*jsonschema.Schema) {
	for _, property := range schema.Properties {
		inner = append(inner, property)
	}
	if schema.Items != nil {
		inner = append(inner, schema.Items)
	}
	if schema.AdditionalProperties != nil && schema.AdditionalProperties.Not == nil {
		inner = append(inner, schema.AdditionalProperties)
	}
	return inner
}

func decode(schema *jsonschema.Schema, text string, value any) (problem string) {
	var instance any
	if err := json.Unmarshal([]byte(text), &instance); err != nil {
		return "not JSON: " + err.Error()
	}
	resolved, err := schema.Resolve(nil)
	if err == nil {
		err = resolved.Validate(instance)
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), value)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// cause puts before a problem why the model did not say more.
func cause(completion *trunklinev1.Completion, problem string) string {
	choices := completion.GetChoices()
	if len(choices) == 0 {
		return "there is no choice"
	}
	for _, part := range choices[0].GetMessage().GetParts() {
		if refusal := part.GetRefusal(); refusal != nil {
			return "the model declined: " + refusal.GetText()
		}
	}
	if reason := choices[0].GetFinishReason(); reason != trunklinev1.FinishReason_FINISH_REASON_STOP {
		return fmt.Sprintf("finish reason %s; %s", strings.TrimPrefix(reason.String(), "FINISH_REASON_"), problem)
	}
	return problem
}
