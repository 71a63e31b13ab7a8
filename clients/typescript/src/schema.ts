/** Types that describe themselves: zod and every other library of the Standard Schema and Standard JSON Schema. */

/** What a value lacks to fit a schema. */
export interface Issue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

type Result<T> = { readonly value: T; readonly issues?: undefined } | { readonly issues: readonly Issue[] };

/** A schema that validates and can be written as JSON Schema, e.g. `z.object({...})` of zod 4.2 or newer. */
export interface Schema<T> {
  readonly "~standard": {
    readonly vendor: string;
    readonly validate: (value: unknown) => Result<T> | Promise<Result<T>>;
    readonly jsonSchema: { readonly input: (options: { target: "draft-2020-12" }) => Record<string, unknown> };
  };
}

export type JsonObject = Record<string, unknown>;

/** JSON Schema text of what the model shall write: a schema, a JSON Schema object or its text as it is. */
export function jsonSchemaText(schema: Schema<unknown> | JsonObject | string, options?: { closed?: boolean }): string {
  if (typeof schema === "string") {
    return schema;
  }
  const written = isSchema(schema) ? fromStandard(schema) : schema;
  return JSON.stringify(options?.closed === true ? closed(written) : written);
}

/** Where an issue is, as a path in the answer: `items[0].price`. */
export function pathOf({ path = [] }: Issue): string {
  return path
    .map((segment) => (typeof segment === "object" ? segment.key : segment))
    .map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`))
    .join("")
    .replace(/^\./, "");
}

function isSchema(schema: Schema<unknown> | JsonObject): schema is Schema<unknown> {
  return "~standard" in schema;
}

function fromStandard(schema: Schema<unknown>): JsonObject {
  const standard: Partial<Schema<unknown>["~standard"]> = schema["~standard"];
  if (standard.jsonSchema === undefined) {
    throw new TypeError(
      `a schema of ${String(standard.vendor)} that cannot be written as JSON Schema; zod can from 4.2`,
    );
  }
  // The dialect is the provider's own affair, and some refuse the word.
  const written = standard.jsonSchema.input({ target: "draft-2020-12" });
  return Object.fromEntries(Object.entries(written).filter(([key]) => key !== "$schema"));
}

/** With `additionalProperties: false` in every object: providers that hold a model to a schema want it closed. */
function closed(schema: unknown): unknown {
  if (Array.isArray(schema)) {
    return schema.map(closed);
  }
  if (typeof schema !== "object" || schema === null) {
    return schema;
  }
  const inner = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, closed(value)]));
  return "properties" in inner ? { additionalProperties: false, ...inner } : inner;
}
