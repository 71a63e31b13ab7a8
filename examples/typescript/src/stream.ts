import { type Client, FinishReason, user } from "@trunkline/client";

/** Prints the answer as it is made. */
export async function stream(client: Client, model: string): Promise<void> {
  const answer = client.stream({ model, messages: [user("One two three.")] });
  for await (const text of answer.text()) {
    process.stdout.write(text);
  }
  process.stdout.write("\n");
  const completion = await answer.collect();
  console.log(`finish: ${FinishReason[completion.choices[0].finishReason]}`);
}
