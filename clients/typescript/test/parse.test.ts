import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "zod";
import { ParseError, user } from "../src/index.js";
import { type CreateCompletionRequest, FinishReason } from "../src/v1.js";
import { failure, withGateway } from "./gateway.js";

const prompt = { model: "fake/json", messages: [user("Where?")] };
const Place = z.object({ city: z.string(), tags: z.array(z.string()).default([]), size: z.number().int() });

const saying = (text: string, finishReason = FinishReason.STOP) => ({
  completion: {
    id: "cmpl_1",
    choices: [{ message: { parts: [{ kind: { case: "text", value: { text } } }] }, finishReason }],
  },
});

async function parseError(answer: object): Promise<ParseError> {
  let error: unknown;
  await withGateway({ create: () => answer }, async (gateway) => {
    error = await failure(gateway.client().parse(prompt, Place));
  });
  assert.ok(error instanceof ParseError);
  return error;
}

test("an answer comes back as its type, with the completion", async () => {
  const asked: CreateCompletionRequest[] = [];
  const create = (request: CreateCompletionRequest) => {
    asked.push(request);
    return saying('{"city":"Paris","size":3}');
  };
  await withGateway({ create }, async (gateway) => {
    const { value, completion } = await gateway
      .client()
      .parse(prompt, Place, { name: "place", description: "A place." });

    const typed: { city: string; tags: string[]; size: number } = value;
    assert.deepEqual(typed, { city: "Paris", tags: [], size: 3 });
    assert.equal(completion.id, "cmpl_1");
    const format = asked[0]?.spec?.responseFormat?.format;
    assert.ok(format?.case === "jsonSchema");
    assert.equal(format.value.name, "place");
    assert.equal(format.value.description, "A place.");
    assert.equal(format.value.strict, undefined);
    const schema = JSON.parse(format.value.jsonSchema) as Record<string, unknown>;
    assert.deepEqual(schema["required"], ["city", "size"]);
    assert.equal("$schema" in schema, false);
  });
});

test("strict holds the model to closed objects", async () => {
  const asked: CreateCompletionRequest[] = [];
  const create = (request: CreateCompletionRequest) => {
    asked.push(request);
    return saying('{"city":"Paris","size":3}');
  };
  await withGateway({ create }, async (gateway) => {
    await gateway.client().parse(prompt, Place, { strict: true });

    const format = asked[0]?.spec?.responseFormat?.format;
    assert.ok(format?.case === "jsonSchema");
    assert.equal(format.value.strict, true);
    assert.match(format.value.jsonSchema, /"additionalProperties":false/);
  });
});

test("an answer that does not fit says where, and keeps the completion", async () => {
  const error = await parseError(saying('{"city":7,"tags":["a",2],"size":3}'));

  assert.deepEqual(
    error.violations.map(({ field }) => field),
    ["city", "tags[1]"],
  );
  assert.match(error.message, /city: .*string/);
  assert.equal(error.completion.id, "cmpl_1");
});

test("an answer of the wrong kind altogether says so", async () => {
  assert.match((await parseError(saying("[]"))).message, /the answer: .*object/);
});

test("an answer that was cut off is named as such", async () => {
  const error = await parseError(saying('{"city":"Pa', FinishReason.LENGTH));

  assert.match(error.message, /not JSON \(it finished with LENGTH\)/);
  assert.deepEqual(error.violations, []);
});

test("a refusal is named as such", async () => {
  const part = { kind: { case: "refusal", value: { text: "I'd rather not." } } };

  assert.match(
    (await parseError({ completion: { choices: [{ message: { parts: [part] } }] } })).message,
    /the model declined: I'd rather not/,
  );
});
