import { type Client, FinishReason, textOf, user } from "@trunkline/client";

/** Asks for the whole answer at once. */
export async function complete(client: Client, model: string): Promise<void> {
  const completion = await client.complete({ model, messages: [user("Say hello.")] });
  console.log(textOf(completion));
  console.log(`finish: ${FinishReason[completion.choices[0].finishReason]}`);
  console.log(`tokens: ${completion.usage?.inputTokens} in, ${completion.usage?.outputTokens} out`);
}
