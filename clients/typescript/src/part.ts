/** A content part that is still growing. */
import { clone } from "@bufbuild/protobuf";
import type { PartDelta, PartFinished } from "./trunkline/v1/completion_service_pb.js";
import { type Citation, type ContentPart, ContentPartSchema } from "./trunkline/v1/message_pb.js";

type Delta = PartDelta["delta"];
type DeltaCase = Exclude<Delta["case"], undefined>;
type Kind = Exclude<ContentPart["kind"]["case"], undefined>;

const MEDIA: readonly Kind[] = ["image", "audio", "video", "document"];

/** Kinds of part that a delta may append to; a signature fits all. */
const FITS: Readonly<Record<Exclude<DeltaCase, "signature">, readonly Kind[]>> = {
  text: ["text", "reasoning", "refusal", "toolCall"],
  data: MEDIA,
  transcript: MEDIA,
  citation: ["text"],
  encrypted: ["reasoning"],
};

/** Deltas are kept in lists and joined when the part is built. */
export class GrowingPart {
  open = true;
  readonly #start: ContentPart;
  readonly #text: string[] = [];
  readonly #data: Uint8Array[] = [];
  readonly #signature: string[] = [];
  readonly #encrypted: string[] = [];
  readonly #transcript: string[] = [];
  readonly #citations: Citation[] = [];
  #end: PartFinished | undefined;

  constructor(start: ContentPart) {
    this.#start = start;
  }

  /** False if a delta of this kind has no place in this kind of part. A part of a kind that is unknown takes all. */
  append(delta: Delta): boolean {
    const kind = this.#start.kind.case;
    if (delta.case !== undefined && delta.case !== "signature" && kind !== undefined) {
      if (!FITS[delta.case].includes(kind)) {
        return false;
      }
    }
    switch (delta.case) {
      case "data":
        this.#data.push(delta.value);
        break;
      case "citation":
        this.#citations.push(delta.value);
        break;
      case "text":
        this.#text.push(delta.value);
        break;
      case "signature":
        this.#signature.push(delta.value);
        break;
      case "encrypted":
        this.#encrypted.push(delta.value);
        break;
      case "transcript":
        this.#transcript.push(delta.value);
        break;
      case undefined:
        break;
    }
    return true;
  }

  finish(end: PartFinished): void {
    this.open = false;
    this.#end = end;
  }

  /** The part as far as it has come. */
  build(): ContentPart {
    const part = clone(ContentPartSchema, this.#start);
    if (this.#signature.length > 0) {
      part.signature = (part.signature ?? "") + this.#signature.join("");
    }
    this.#fill(part.kind);
    return part;
  }

  #fill(kind: ContentPart["kind"]): void {
    const text = this.#text.join("");
    switch (kind.case) {
      case "text":
        kind.value.text += text;
        kind.value.citations.push(...this.#citations);
        break;
      case "refusal":
        kind.value.text += text;
        break;
      case "reasoning":
        kind.value.text += text;
        if (this.#encrypted.length > 0) {
          kind.value.encrypted = (kind.value.encrypted ?? "") + this.#encrypted.join("");
        }
        break;
      case "toolCall":
        kind.value.argumentsJson += text;
        if (this.#end?.completedArgumentsJson !== undefined) {
          kind.value.completedArgumentsJson = this.#end.completedArgumentsJson;
        }
        if (this.#end?.reasoning !== undefined) {
          kind.value.reasoning = this.#end.reasoning;
        }
        break;
      case "image":
      case "audio":
      case "video":
      case "document":
        if (this.#data.length > 0) {
          const first = kind.value.source.case === "data" ? [kind.value.source.value] : [];
          kind.value.source = { case: "data", value: Uint8Array.from(Buffer.concat([...first, ...this.#data])) };
        }
        if (this.#transcript.length > 0) {
          kind.value.transcript = (kind.value.transcript ?? "") + this.#transcript.join("");
        }
        break;
      default:
        break;
    }
  }
}
