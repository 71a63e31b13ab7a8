import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { type Client, RateLimited, textOf, user } from "@trunkline/client";

/** Waits as long as the error says and tries again. The gateway waits by itself if the deadline allows; here not. */
export async function rateLimit(client: Client, model: string): Promise<void> {
  // The fake model limits each user once.
  const prompt = { model, messages: [user("Try again.")], endUserId: randomUUID() };
  for (;;) {
    try {
      console.log(textOf(await client.complete(prompt, { timeoutMs: 2000 })));
      return;
    } catch (error) {
      if (!(error instanceof RateLimited) || error.retryAfterMs === undefined) {
        throw error;
      }
      console.log(`${error.reason} retry after ${Math.round(error.retryAfterMs) / 1000} s`);
      await sleep(error.retryAfterMs);
    }
  }
}
