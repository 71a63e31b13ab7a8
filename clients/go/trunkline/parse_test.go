package trunkline

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	trunklinev1 "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

type city struct {
	Name    string   `json:"name" jsonschema:"the city's own name"`
	People  int      `json:"people"`
	Rivers  []string `json:"rivers"`
	Country *country `json:"country"`
}

type country struct {
	Code string `json:"code"`
}

// saying answers with a text, whatever is asked, and keeps the spec.
func saying(completion *trunklinev1.Completion, got **trunklinev1.CompletionSpec) *gateway {
	return &gateway{create: func(_ context.Context, r *trunklinev1.CreateCompletionRequest) (*trunklinev1.Completion, error) {
		*got = r.GetSpec()
		return completion, nil
	}}
}

func TestParseAsksForTheTypeAndReturnsIt(t *testing.T) {
	said := answer(`{"name":"Paris","people":2100000,"rivers":["Seine"],"country":{"code":"FR"}}`)
	var asked *trunklinev1.CompletionSpec
	client := saying(said, &asked).connect(t)

	value, completion, err := Parse[city](inTime(t), client, hello)

	if err != nil {
		t.Fatal(err)
	}
	if value.Name != "Paris" || value.People != 2100000 || value.Rivers[0] != "Seine" || value.Country.Code != "FR" {
		t.Errorf("value is %+v", value)
	}
	if !proto.Equal(completion, said) {
		t.Errorf("completion is %v", completion)
	}
	format := asked.GetResponseFormat().GetJsonSchema()
	want := `{"type":"object","properties":{` +
		`"name":{"type":"string","description":"the city's own name"},"people":{"type":"integer"},` +
		`"rivers":{"type":"array","items":{"type":"string"}},` +
		`"country":{"type":["null","object"],"properties":{"code":{"type":"string"}},"required":["code"],"additionalProperties":false}},` +
		`"required":["name","people","rivers","country"],"additionalProperties":false}`
	if format.GetJsonSchema() != want || !format.GetStrict() {
		t.Errorf("asked for %v", format)
	}
	if hello.GetResponseFormat() != nil {
		t.Error("the caller's spec was changed")
	}
}

func TestWhatLeavesSomethingOpenIsNotAskedForStrictly(t *testing.T) {
	strict := func(schema func() (*trunklinev1.JsonSchemaFormat, error)) bool {
		format, err := schema()
		if err != nil {
			t.Fatal(err)
		}
		return format.GetStrict()
	}
	if !strict(formatOf[city]) {
		t.Error("a closed struct")
	}
	if strict(formatOf[struct {
		Name string `json:"name,omitempty"`
	}]) {
		t.Error("an optional field")
	}
	if strict(formatOf[struct{ Counts map[string]int }]) {
		t.Error("a map")
	}
	if strict(formatOf[struct{ Anything any }]) {
		t.Error("anything")
	}
	if strict(formatOf[struct{ Inner []struct{ Anything any } }]) {
		t.Error("anything deeper down")
	}
}

// formatOf is what Parse asks for.
func formatOf[T any]() (format *trunklinev1.JsonSchemaFormat, err error) {
	_, spec, err := asking[T](hello)
	return spec.GetResponseFormat().GetJsonSchema(), err
}

func TestAnAnswerThatDoesNotFitIsNamedAndKept(t *testing.T) {
	cut := answer(`{"name":"Par`)
	cut.Choices[0].FinishReason = trunklinev1.FinishReason_FINISH_REASON_LENGTH
	declined := answer("")
	declined.Choices[0].Message = Assistant("", &trunklinev1.ContentPart{
		Kind: &trunklinev1.ContentPart_Refusal{Refusal: &trunklinev1.Refusal{Text: "I cannot."}},
	})
	for name, row := range map[string]struct {
		said *trunklinev1.Completion
		says string
	}{
		"not JSON":      {answer("Paris."), "not JSON"},
		"missing":       {answer(`{"name":"Paris","people":1,"rivers":[]}`), "country"},
		"wrong type":    {answer(`{"name":"Paris","people":"many","rivers":[],"country":null}`), "people"},
		"too much":      {answer(`{"name":"Paris","people":1,"rivers":[],"country":null,"mayor":"x"}`), "mayor"},
		"deeper down":   {answer(`{"name":"Paris","people":1,"rivers":[7],"country":null}`), "rivers"},
		"cut off":       {cut, "finish reason LENGTH"},
		"declined":      {declined, "the model declined: I cannot."},
		"without words": {&trunklinev1.Completion{}, "no choice"},
	} {
		var asked *trunklinev1.CompletionSpec
		value, completion, err := Parse[city](inTime(t), saying(row.said, &asked).connect(t), hello)
		var misfit *ParseError
		if !errors.As(err, &misfit) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: error is %v, want %q", name, err, row.says)
			continue
		}
		if !proto.Equal(completion, row.said) || misfit.Completion != completion || misfit.Text != TextOf(row.said) {
			t.Errorf("%s: kept %v", name, misfit)
		}
		if value.Name != "" {
			t.Errorf("%s: half a value %+v", name, value)
		}
	}
}

func TestASchemaOfTheCallersOwnIsKeptAndHeldTo(t *testing.T) {
	type answered struct {
		Size string `json:"size"`
	}
	own := `{"type":"object","properties":{"size":{"enum":["small","large"]}},"required":["size"]}`
	spec := Spec("fake/json", User("How large?"))
	spec.ResponseFormat = &trunklinev1.ResponseFormat{Format: &trunklinev1.ResponseFormat_JsonSchema{
		JsonSchema: &trunklinev1.JsonSchemaFormat{JsonSchema: own},
	}}
	var asked *trunklinev1.CompletionSpec

	value, _, err := Parse[answered](inTime(t), saying(answer(`{"size":"large"}`), &asked).connect(t), spec)
	if err != nil || value.Size != "large" || !proto.Equal(asked, spec) {
		t.Errorf("value %+v, error %v, asked %v", value, err, asked)
	}

	_, _, err = Parse[answered](inTime(t), saying(answer(`{"size":"medium"}`), &asked).connect(t), spec)
	if misfit := new(ParseError); !errors.As(err, &misfit) || !strings.Contains(err.Error(), "size") {
		t.Errorf("error is %v", err)
	}
}

func TestAValueIsWholeOrNotThere(t *testing.T) {
	type shirt struct {
		Color string `json:"color"`
		Size  string `json:"size"`
	}
	spec := Spec("fake/json", User("Which shirt?"))
	spec.ResponseFormat = &trunklinev1.ResponseFormat{Format: &trunklinev1.ResponseFormat_JsonSchema{
		JsonSchema: &trunklinev1.JsonSchemaFormat{JsonSchema: `{"type":"object"}`},
	}}
	var asked *trunklinev1.CompletionSpec

	value, _, err := Parse[shirt](inTime(t), saying(answer(`{"color":"red","size":7}`), &asked).connect(t), spec)

	if misfit := new(ParseError); !errors.As(err, &misfit) || !strings.Contains(err.Error(), "size") || value != (shirt{}) {
		t.Errorf("value %+v, error %v", value, err)
	}
}

func TestATypeWithoutASchemaMakesNoCall(t *testing.T) {
	type loop struct{ Next *loop }
	g := &gateway{}
	client := g.connect(t)

	_, _, list := Parse[[]string](inTime(t), client, hello)
	_, _, channel := Parse[struct{ C chan int }](inTime(t), client, hello)
	_, _, circle := Parse[loop](inTime(t), client, hello)
	spec := Spec("fake/json", User("How large?"))
	spec.ResponseFormat = &trunklinev1.ResponseFormat{Format: &trunklinev1.ResponseFormat_JsonSchema{
		JsonSchema: &trunklinev1.JsonSchemaFormat{JsonSchema: "{"},
	}}
	_, _, broken := Parse[city](inTime(t), client, spec)

	for says, err := range map[string]error{
		"use a struct": list, "chan": channel, "cycle": circle, "spec.response_format.json_schema": broken,
	} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error is %v, want %q", err, says)
		}
	}
	if g.count() != 0 {
		t.Errorf("%d calls", g.count())
	}
}

func TestAnErrorOfTheCallIsNoParseError(t *testing.T) {
	g := &gateway{create: func(context.Context, *trunklinev1.CreateCompletionRequest) (*trunklinev1.Completion, error) {
		return nil, failure(codes.NotFound, "MODEL_NOT_FOUND", "no such model")
	}}

	_, completion, err := Parse[city](inTime(t), g.connect(t), hello)

	if ReasonOf(err) != "MODEL_NOT_FOUND" || completion != nil {
		t.Errorf("error is %v", err)
	}
}

func TestAToolTakesItsArgumentsFromAStruct(t *testing.T) {
	type place struct {
		City string `json:"city" jsonschema:"where"`
	}
	tool, err := FunctionOf[place]("get_weather", "Tells the weather")
	want := `{"type":"object","properties":{"city":{"type":"string","description":"where"}},` +
		`"required":["city"],"additionalProperties":false}`
	if err != nil || !proto.Equal(tool, Function("get_weather", "Tells the weather", want)) {
		t.Errorf("tool %v, error %v", tool, err)
	}

	where, err := ArgumentsOf[place](&trunklinev1.ToolCall{Name: "get_weather", ArgumentsJson: `{"city":"Paris"}`})
	if err != nil || where.City != "Paris" {
		t.Errorf("arguments %+v, error %v", where, err)
	}
	for _, said := range []string{`{"city":"Par`, `{"town":"Paris"}`, `{}`, "", `[]`, `null`} {
		_, err := ArgumentsOf[place](&trunklinev1.ToolCall{Name: "get_weather", ArgumentsJson: said})
		if misfit := new(ParseError); !errors.As(err, &misfit) || !strings.Contains(err.Error(), "get_weather: ") || misfit.Text != said {
			t.Errorf("%q: error is %v", said, err)
		}
	}
	if _, err := ArgumentsOf[struct{}](&trunklinev1.ToolCall{Name: "now"}); err != nil {
		t.Errorf("no arguments where none are wanted: %v", err)
	}
}
