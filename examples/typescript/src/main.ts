// Four short programs that call a gateway: npm start -- [complete] [stream] [tool_call] [rate_limit]
//
// TRUNKLINE_ADDRESS says where the gateway is; TRUNKLINE_MODEL names a model to ask instead of the fake ones, which
// answer without a key. Without arguments all four run.
import { type Client, connect } from "@trunkline/client";
import { complete } from "./complete.js";
import { rateLimit } from "./rate_limit.js";
import { stream } from "./stream.js";
import { toolCall } from "./tool_call.js";

type Program = (client: Client, model: string) => Promise<void>;

const PROGRAMS: [name: string, model: string, run: Program][] = [
  ["complete", "fake/echo", complete],
  ["stream", "fake/echo", stream],
  ["tool_call", "fake/tool", toolCall],
  ["rate_limit", "fake/rate-limit", rateLimit],
];

const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !PROGRAMS.some(([known]) => known === name));
if (unknown.length > 0) {
  console.error(`no program ${unknown.join(", ")}; there are ${PROGRAMS.map(([name]) => name).join(", ")}`);
  process.exit(2);
}
const client = connect();
try {
  for (const [name, model, run] of PROGRAMS) {
    if (chosen.length === 0 || chosen.includes(name)) {
      console.log(`# ${name}`);
      await run(client, process.env.TRUNKLINE_MODEL ?? model);
    }
  }
} catch (error) {
  console.error(String(error));
  process.exitCode = 1;
} finally {
  client.close();
}
