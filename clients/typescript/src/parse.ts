/** Answers that fit a type. */
import { type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ParseError, type Violation } from "./errors.js";
import { refusalOf, textOf } from "./messages.js";
import { type Schema, jsonSchemaText, pathOf } from "./schema.js";
import { type Completion, FinishReason, type ResponseFormatSchema } from "./trunkline/v1/completion_pb.js";

/** An answer as its type, and the completion it came in. */
export interface Parsed<T> {
  value: T;
  completion: Completion;
}

export function answerFormat(
  schema: Schema<unknown>,
  { name = "response", description = "", strict }: { name?: string; description?: string; strict?: boolean },
): MessageInitShape<typeof ResponseFormatSchema> {
  const jsonSchema = jsonSchemaText(schema, { closed: strict === true });
  const value = { name, description, jsonSchema, ...(strict !== undefined && { strict }) };
  return { format: { case: "jsonSchema", value } };
}

export async function readAnswer<T>(completion: Completion, schema: Schema<T>): Promise<T> {
  const result = await schema["~standard"].validate(json(completion));
  if (result.issues !== undefined) {
    const violations = result.issues.map((issue) => ({ field: pathOf(issue), description: issue.message }));
    const all = violations.map(({ field, description }) => `${field || "the answer"}: ${description}`).join("; ");
    throw misfit(`the answer does not fit the schema: ${all}`, completion, { violations });
  }
  return result.value;
}

function json(completion: Completion): unknown {
  const refusal = refusalOf(completion);
  if (refusal !== undefined) {
    throw misfit(`the model declined: ${refusal}`, completion);
  }
  try {
    return JSON.parse(textOf(completion));
  } catch (error) {
    const finish = FinishReason[completion.choices[0]?.finishReason ?? FinishReason.UNSPECIFIED];
    throw misfit(`the answer is not JSON (it finished with ${finish})`, completion, { cause: error });
  }
}

function misfit(
  message: string,
  completion: Completion,
  facts: { violations?: Violation[]; cause?: unknown } = {},
): ParseError {
  return new ParseError(message, { code: Code.Unknown, requestId: completion.id, completion, ...facts });
}
