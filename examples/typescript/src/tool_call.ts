import { type Client, FinishReason, textOf, tool, toolCallsOf, toolResult, user } from "@trunkline/client";
import { z } from "zod";

const Place = z.object({ city: z.string().describe("Name of the city.") });
const getWeather = tool({ name: "get_weather", description: "Tells the weather in a city.", parameters: Place });

/** Lets the model call a function and go on with what it returns. */
export async function toolCall(client: Client, model: string): Promise<void> {
  const messages = [user("What is the weather in Paris?")];
  for (;;) {
    const completion = await client.complete({ model, messages, tools: [getWeather] });
    const [choice] = completion.choices;
    const calls = toolCallsOf(completion);
    if (calls.length === 0) {
      console.log(textOf(completion));
      console.log(`finish: ${FinishReason[choice.finishReason]}`);
      return;
    }
    // What the model said goes back as it came: order, ids and signatures included.
    messages.push(choice.message!);
    for (const call of calls) {
      console.log(`call: ${call.name} ${call.argumentsJson}`);
      messages.push(toolResult(call, weatherIn(Place.parse(JSON.parse(call.argumentsJson)))));
    }
  }
}

/** Would ask a service; here it is always the same. */
function weatherIn(_: z.infer<typeof Place>): string {
  return "18 degrees";
}
