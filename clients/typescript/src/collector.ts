/** The rules of a stream, and the completion that its events add up to. */
import { create } from "@bufbuild/protobuf";
import { Code, StreamIncomplete, StreamRuleBroken } from "./errors.js";
import { GrowingPart } from "./part.js";
import {
  type Choice,
  ChoiceSchema,
  type Completion,
  CompletionSchema,
  FinishReason,
  type TokenLogprob,
  type Usage,
} from "./trunkline/v1/completion_pb.js";
import type {
  AttemptStarted,
  ChoiceFinished,
  CompletionFinished,
  CompletionStarted,
  PartDelta,
  PartStarted,
  StreamCompletionResponse,
} from "./trunkline/v1/completion_service_pb.js";
import { Role } from "./trunkline/v1/message_pb.js";

interface GrowingChoice {
  parts: GrowingPart[];
  logprobs: TokenLogprob[];
  end?: ChoiceFinished;
}

type Indexed = Pick<PartDelta, "choiceIndex" | "partIndex">;

/**
 * Checks each event against the rules as it adds it. An event of a kind that is unknown here counts and is passed over.
 */
export class Collector {
  #sequence = 0;
  #started: CompletionStarted | undefined;
  #attempt: AttemptStarted | undefined;
  #usage: Usage | undefined;
  #end: CompletionFinished | undefined;
  readonly #choices = new Map<number, GrowingChoice>();

  /** Throws StreamRuleBroken. */
  add({ sequenceNumber, event }: StreamCompletionResponse): void {
    this.#sequence++;
    this.#require(sequenceNumber === this.#sequence, `has number ${sequenceNumber}`);
    this.#require(this.#end === undefined, "comes after finished");
    this.#require((event.case === "started") === (this.#started === undefined), "started must come first, and once");
    switch (event.case) {
      case "started":
        this.#started = event.value;
        break;
      case "attemptStarted":
        this.#require(this.#attempt === undefined, "starts another attempt without restarted");
        this.#attempt = event.value;
        break;
      case "restarted":
        this.#attempt = undefined;
        this.#usage = undefined;
        this.#choices.clear();
        break;
      case "partStarted":
        this.#startPart(event.value);
        break;
      case "partDelta":
        this.#growPart(event.value);
        break;
      case "partFinished":
        this.#openPart(event.value).finish(event.value);
        break;
      case "choiceFinished":
        this.#finishChoice(event.value);
        break;
      case "usageUpdated":
        this.#usage = event.value.usage;
        break;
      case "finished":
        this.#finish(event.value);
        break;
      default:
        break;
    }
  }

  /** Whether the stream is complete. */
  get finished(): boolean {
    return this.#end !== undefined;
  }

  /** What a unary call would have returned. Throws StreamIncomplete before the stream has finished. */
  completion(): Completion {
    if (this.#end === undefined) {
      throw new StreamIncomplete(`the stream ended after event ${this.#sequence} without finished`, {
        code: Code.Unavailable,
        retryable: true,
        requestId: this.#started?.completionId ?? "",
        completion: this.snapshot(),
      });
    }
    return this.snapshot();
  }

  /** The completion as far as it has come. */
  snapshot(): Completion {
    const { createTime, completionId } = this.#started ?? {};
    const usage = this.#end === undefined ? this.#usage : this.#end.usage;
    const timing = this.#end?.timing;
    return create(CompletionSchema, {
      id: completionId ?? "",
      provider: this.#attempt?.provider ?? "",
      model: this.#attempt?.model ?? "",
      providerResponseId: this.#attempt?.providerResponseId ?? "",
      providerRequestId: this.#end?.providerRequestId ?? "",
      choices: [...this.#choices].sort(([a], [b]) => a - b).map(([index, choice]) => build(index, choice)),
      attempts: this.#end?.attempts ?? 0,
      serviceTier: this.#end?.serviceTier ?? "",
      systemFingerprint: this.#end?.systemFingerprint ?? "",
      warnings: this.#end?.warnings ?? [],
      rateLimits: this.#end?.rateLimits ?? [],
      ...(createTime && { createTime }),
      ...(usage && { usage }),
      ...(timing && { timing }),
    });
  }

  #startPart({ choiceIndex, partIndex, part }: PartStarted): void {
    const { parts } = this.#openChoice(choiceIndex);
    this.#require(partIndex === parts.length, `starts part ${partIndex} after ${parts.length} parts`);
    this.#require(part !== undefined, "starts a part without saying which");
    parts.push(new GrowingPart(part));
  }

  #growPart(event: PartDelta): void {
    const part = this.#openPart(event);
    this.#require(part.append(event.delta), `appends ${event.delta.case} to a part of another kind`);
    this.#choices.get(event.choiceIndex)?.logprobs.push(...event.logprobs);
  }

  #finishChoice(event: ChoiceFinished): void {
    const choice = this.#openChoice(event.choiceIndex);
    const open = choice.parts.findIndex((part) => part.open);
    this.#require(open < 0, `finishes choice ${event.choiceIndex} with part ${open} open`);
    choice.end = event;
  }

  #finish(event: CompletionFinished): void {
    for (const [index, { end }] of this.#choices) {
      this.#require(end !== undefined, `finishes the completion with choice ${index} open`);
    }
    this.#end = event;
  }

  #openChoice(index: number): GrowingChoice {
    this.#require(this.#attempt !== undefined, "comes before attempt_started");
    this.#require(index >= 0, `names choice ${index}`);
    const choice = this.#choices.get(index) ?? { parts: [], logprobs: [] };
    this.#require(choice.end === undefined, `comes after choice ${index} finished`);
    this.#choices.set(index, choice);
    return choice;
  }

  #openPart({ choiceIndex, partIndex }: Indexed): GrowingPart {
    const part = this.#choices.get(choiceIndex)?.parts[partIndex];
    this.#require(part?.open === true, `names part ${partIndex} of choice ${choiceIndex}, which is not open`);
    return part;
  }

  #require(holds: boolean, otherwise: string): asserts holds {
    if (!holds) {
      throw new StreamRuleBroken(`event ${this.#sequence} ${otherwise}`, {
        code: Code.Internal,
        requestId: this.#started?.completionId ?? "",
        completion: this.snapshot(),
      });
    }
  }
}

function build(index: number, { parts, logprobs, end }: GrowingChoice): Choice {
  return create(ChoiceSchema, {
    index,
    message: { role: Role.ASSISTANT, parts: parts.map((part) => part.build()) },
    finishReason: end?.finishReason ?? FinishReason.UNSPECIFIED,
    rawFinishReason: end?.rawFinishReason ?? "",
    logprobs,
    ...(end?.stopSequence !== undefined && { stopSequence: end.stopSequence }),
  });
}
