import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { z } from "zod";
import {
  assistant,
  audio,
  developer,
  document,
  image,
  refusalOf,
  system,
  text,
  textOf,
  tool,
  toolCallsOf,
  toolResult,
  user,
  video,
} from "../src/index.js";
import { CompletionSchema, type ContentPart, MediaDetail, Role } from "../src/v1.js";

const PNG = Buffer.from("89504e470d0a1a0a0000000d49484452", "hex");

function mediaOf(part: ContentPart) {
  assert.ok(part.kind.case === "image" || part.kind.case === "document" || part.kind.case === "audio");
  return part.kind.value;
}

test("each role has a builder that keeps the order of its parts", () => {
  const roles = [system("a"), developer("a"), user("a"), assistant("a")].map(({ role }) => role);
  const { parts } = user("Look:", image("https://example.org/cat.png"), text("What is it?"));

  assert.deepEqual(roles, [Role.SYSTEM, Role.DEVELOPER, Role.USER, Role.ASSISTANT]);
  assert.deepEqual(
    parts.map(({ kind }) => kind.case),
    ["text", "image", "text"],
  );
});

test("an image from bytes knows its type", () => {
  const media = mediaOf(image(PNG, { detail: MediaDetail.LOW }));

  assert.equal(media.mimeType, "image/png");
  assert.equal(media.detail, MediaDetail.LOW);
  assert.deepEqual(media.source, { case: "data", value: PNG });
});

test("an image from an address is fetched by the provider", () => {
  for (const address of ["https://example.org/cat.png", new URL("https://example.org/cat.png")]) {
    assert.deepEqual(mediaOf(image(address)).source, { case: "uri", value: "https://example.org/cat.png" });
  }
});

const SNIFFED = {
  "image/jpeg": "ffd8ffe000104a46",
  "image/gif": "474946383961",
  "image/webp": "524946460000000057454250",
  "audio/wav": "524946460000000057415645",
  "audio/mpeg": "494433040000",
  "video/mp4": "000000186674797069736f6d",
  "application/pdf": "255044462d312e37",
};
for (const [mimeType, hex] of Object.entries(SNIFFED)) {
  test(`bytes of ${mimeType} are recognised`, () => {
    assert.equal(mediaOf(document(Buffer.from(hex, "hex"))).mimeType, mimeType);
  });
}

test("a document carries its name and the type that it was given", () => {
  const media = mediaOf(document(Buffer.from("a,b"), { mimeType: "text/csv", filename: "a.csv" }));

  assert.equal(media.mimeType, "text/csv");
  assert.equal(media.filename, "a.csv");
});

test("bytes that say nothing of themselves need a type", () => {
  assert.throws(() => audio(new Uint8Array(4)), /audio: the bytes do not say what they are; pass mimeType/);
});

test("a data: URL is refused before it is sent", () => {
  assert.throws(() => video("data:video/mp4;base64,AAAA"), /video: expected an https:, gs: or s3: address/);
});

test("bytes in shared memory are copied", () => {
  const shared = new Uint8Array(new SharedArrayBuffer(PNG.length));
  shared.set(PNG);

  assert.deepEqual(mediaOf(image(shared)).source.value, Uint8Array.from(PNG));
});

test("a tool result answers its call", () => {
  const call = { id: "call_1", name: "get_weather" };
  const [part] = toolResult(call, "no such city", { isError: true }).parts;
  const rich = toolResult(call, ["see", image(PNG)]);

  assert.equal(rich.role, Role.TOOL);
  assert.equal(rich.parts[0]?.kind.case === "toolResult" && rich.parts[0].kind.value.parts.length, 2);
  assert.ok(part?.kind.case === "toolResult");
  assert.equal(part.kind.value.toolCallId, "call_1");
  assert.equal(part.kind.value.name, "get_weather");
  assert.equal(part.kind.value.isError, true);
});

test("a tool takes its parameters from a zod schema", () => {
  const { kind } = tool({
    name: "get_weather",
    description: "The weather in a city.",
    parameters: z.object({ city: z.string().describe("Its name."), days: z.number().optional() }),
  });

  assert.ok(kind.case === "function");
  assert.deepEqual(JSON.parse(kind.value.parametersJsonSchema), {
    type: "object",
    properties: { city: { type: "string", description: "Its name." }, days: { type: "number" } },
    required: ["city"],
  });
  assert.equal(kind.value.strict, undefined);
});

test("a strict tool has closed objects, all the way down", () => {
  const parameters = z.object({ at: z.object({ city: z.string() }), also: z.array(z.object({ id: z.string() })) });
  const { kind } = tool({ name: "f", parameters, strict: true });

  assert.ok(kind.case === "function");
  assert.equal(kind.value.strict, true);
  assert.equal(kind.value.parametersJsonSchema.split('"additionalProperties":false').length - 1, 3);
});

test("a JSON Schema goes as it is, as text byte for byte", () => {
  const written = '{ "type": "object",  "properties": {} }';
  const asText = tool({ name: "f", parameters: written }).kind;
  const asObject = tool({ name: "f", parameters: { type: "object", minProperties: 1 } }).kind;
  const none = tool({ name: "f" }).kind;

  assert.equal(asText.case === "function" && asText.value.parametersJsonSchema, written);
  assert.equal(
    asObject.case === "function" && asObject.value.parametersJsonSchema,
    '{"type":"object","minProperties":1}',
  );
  assert.equal(none.case === "function" && none.value.parametersJsonSchema, "");
});

test("a schema that cannot be written as JSON Schema is refused", () => {
  const schema = { "~standard": { vendor: "homemade", validate: () => ({ value: 1 }) } };

  assert.throws(() => tool({ name: "f", parameters: schema }), /homemade that cannot be written as JSON Schema/);
});

test("a completion gives its text, its calls and its refusal", () => {
  const completion = create(CompletionSchema, {
    choices: [
      {
        message: {
          parts: [
            { kind: { case: "reasoning", value: { text: "hm" } } },
            { kind: { case: "text", value: { text: "Hel" } } },
            { kind: { case: "toolCall", value: { id: "1", name: "mine" } } },
            { kind: { case: "toolCall", value: { id: "2", name: "theirs", providerExecuted: true } } },
            { kind: { case: "text", value: { text: "lo" } } },
            { kind: { case: "refusal", value: { text: "no" } } },
          ],
        },
      },
    ],
  });

  assert.equal(textOf(completion), "Hello");
  assert.deepEqual(
    toolCallsOf(completion).map(({ name }) => name),
    ["mine"],
  );
  assert.equal(refusalOf(completion), "no");
  assert.equal(refusalOf(create(CompletionSchema)), undefined);
  assert.equal(textOf(create(CompletionSchema)), "");
});
