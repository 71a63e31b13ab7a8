/** Messages, content parts and tools, written short. */
import { create } from "@bufbuild/protobuf";
import { type JsonObject, type Schema, jsonSchemaText } from "./schema.js";
import { type Completion, type Tool, ToolSchema } from "./trunkline/v1/completion_pb.js";
import {
  type ContentPart,
  ContentPartSchema,
  type MediaDetail,
  type Message,
  MessageSchema,
  Role,
  type ToolCall,
} from "./trunkline/v1/message_pb.js";

/** A string is a text part. */
export type Content = string | ContentPart;

export interface MediaOptions {
  /** Default: what the first bytes say. */
  mimeType?: string;
  filename?: string;
  detail?: MediaDetail;
}

type MediaKind = "image" | "audio" | "video" | "document";

export const system = (...content: Content[]): Message => message(Role.SYSTEM, content);
export const developer = (...content: Content[]): Message => message(Role.DEVELOPER, content);
export const user = (...content: Content[]): Message => message(Role.USER, content);
export const assistant = (...content: Content[]): Message => message(Role.ASSISTANT, content);

/** The answer to a tool call: `toolResult(call, "18 degrees")`. */
export function toolResult(
  call: Pick<ToolCall, "id" | "name">,
  content: Content | readonly Content[],
  options: { isError?: boolean } = {},
): Message {
  const contents = (Array.isArray(content) ? content : [content]) as readonly Content[];
  const value = { toolCallId: call.id, name: call.name, parts: contents.map(part), isError: options.isError ?? false };
  return create(MessageSchema, { role: Role.TOOL, parts: [{ kind: { case: "toolResult", value } }] });
}

export const text = (value: string): ContentPart =>
  create(ContentPartSchema, { kind: { case: "text", value: { text: value } } });

/** From its bytes, or from an address that the provider fetches. */
export const image = (source: Uint8Array | string | URL, options?: MediaOptions): ContentPart =>
  media("image", source, options);
export const audio = (source: Uint8Array | string | URL, options?: MediaOptions): ContentPart =>
  media("audio", source, options);
export const video = (source: Uint8Array | string | URL, options?: MediaOptions): ContentPart =>
  media("video", source, options);
/** A PDF or another file. */
export const document = (source: Uint8Array | string | URL, options?: MediaOptions): ContentPart =>
  media("document", source, options);

/** A function that the model may call. `parameters`: a zod schema, a JSON Schema or its text. */
export function tool(definition: {
  name: string;
  description?: string;
  parameters?: Schema<unknown> | JsonObject | string;
  strict?: boolean;
}): Tool {
  const { name, description = "", parameters = "", strict } = definition;
  const parametersJsonSchema = jsonSchemaText(parameters, { closed: strict === true });
  const value = { name, description, parametersJsonSchema, ...(strict !== undefined && { strict }) };
  return create(ToolSchema, { kind: { case: "function", value } });
}

/** All text of the first choice. */
export function textOf(completion: Completion): string {
  return parts(completion)
    .map(({ kind }) => (kind.case === "text" ? kind.value.text : ""))
    .join("");
}

/** The calls of the first choice that the caller has to run. */
export function toolCallsOf(completion: Completion): ToolCall[] {
  return parts(completion).flatMap(({ kind }) =>
    kind.case === "toolCall" && !kind.value.providerExecuted ? [kind.value] : [],
  );
}

/** What the model said as it declined, in the first choice; undefined if it did not. */
export function refusalOf(completion: Completion): string | undefined {
  const refusals = parts(completion).flatMap(({ kind }) => (kind.case === "refusal" ? [kind.value.text] : []));
  return refusals.length > 0 ? refusals.join("") : undefined;
}

function parts(completion: Completion): ContentPart[] {
  return completion.choices[0]?.message?.parts ?? [];
}

function message(role: Role, content: readonly Content[]): Message {
  return create(MessageSchema, { role, parts: content.map(part) });
}

function part(content: Content): ContentPart {
  return typeof content === "string" ? text(content) : content;
}

function media(kind: MediaKind, source: Uint8Array | string | URL, options: MediaOptions = {}): ContentPart {
  const value =
    source instanceof Uint8Array
      ? {
          ...options,
          source: { case: "data" as const, value: bytes(source) },
          mimeType: mimeType(kind, source, options),
        }
      : { ...options, source: { case: "uri" as const, value: address(kind, String(source)) } };
  return create(ContentPartSchema, { kind: { case: kind, value } });
}

function bytes(source: Uint8Array): Uint8Array<ArrayBuffer> {
  return source.buffer instanceof ArrayBuffer ? (source as Uint8Array<ArrayBuffer>) : Uint8Array.from(source);
}

function address(kind: MediaKind, uri: string): string {
  if (!/^(https?|gs|s3):/i.test(uri)) {
    throw new TypeError(
      `${kind}: expected an https:, gs: or s3: address, got ${JSON.stringify(uri.slice(0, 40))}; pass bytes as bytes`,
    );
  }
  return uri;
}

const SIGNATURES: readonly (readonly [RegExp, string])[] = [
  [/^\x89PNG\r\n/, "image/png"],
  [/^\xff\xd8\xff/, "image/jpeg"],
  [/^GIF8[79]a/, "image/gif"],
  [/^RIFF[^]{4}WEBP/, "image/webp"],
  [/^RIFF[^]{4}WAVE/, "audio/wav"],
  [/^(ID3|\xff[\xf2\xf3\xfb])/, "audio/mpeg"],
  [/^[^]{4}ftyp/, "video/mp4"],
  [/^%PDF-/, "application/pdf"],
];

function mimeType(kind: MediaKind, source: Uint8Array, options: MediaOptions): string {
  const start = Buffer.from(source.subarray(0, 16)).toString("latin1");
  const found = options.mimeType ?? SIGNATURES.find(([signature]) => signature.test(start))?.[1];
  if (found === undefined) {
    throw new TypeError(`${kind}: the bytes do not say what they are; pass mimeType`);
  }
  return found;
}
