/** Answers that fit a type. */
import { type MessageInitShape } from "@bufbuild/protobuf";
import { refusalOf, textOf } from "./messages.js";
import { type Issue, type Schema, jsonSchemaText, pathOf } from "./schema.js";
import { type Completion, FinishReason, type ResponseFormatSchema } from "./trunkline/v1/completion_pb.js";

/** An answer as its type, and the completion it came in. */
export interface Parsed<T> {
  value: T;
  completion: Completion;
}

/** The answer does not fit; the message says where and `completion` has all of it. */
export class ParseError extends Error {
  readonly completion: Completion;
  /** What does not fit, by path in the answer. Empty if the answer is no JSON at all. */
  readonly violations: readonly { path: string; message: string }[];

  constructor(message: string, completion: Completion, issues: readonly Issue[] = [], cause?: unknown) {
    super(message, { cause });
    this.name = "ParseError";
    this.completion = completion;
    this.violations = issues.map((issue) => ({ path: pathOf(issue), message: issue.message }));
  }
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
    const first = result.issues.map((issue) => `${pathOf(issue) || "the answer"}: ${issue.message}`).join("; ");
    throw new ParseError(`the answer does not fit the schema: ${first}`, completion, result.issues);
  }
  return result.value;
}

function json(completion: Completion): unknown {
  const refusal = refusalOf(completion);
  if (refusal !== undefined) {
    throw new ParseError(`the model declined: ${refusal}`, completion);
  }
  try {
    return JSON.parse(textOf(completion));
  } catch (error) {
    const finish = FinishReason[completion.choices[0]?.finishReason ?? FinishReason.UNSPECIFIED];
    throw new ParseError(`the answer is not JSON (it finished with ${finish})`, completion, [], error);
  }
}
