// A caller made of gRPC alone, as Node has it, that pings every so many seconds: ADDRESS SECONDS REQUEST (hexadecimal).
const grpc = require("@grpc/grpc-js");

const [address, seconds, request] = process.argv.slice(2);
const client = new grpc.Client(address, grpc.credentials.createInsecure(), {
  "grpc.keepalive_time_ms": Number(seconds) * 1000,
  "grpc.keepalive_permit_without_calls": 1,
});
const same = (bytes) => bytes;
const call = client.makeServerStreamRequest(
  "/trunkline.v1.CompletionService/StreamCompletion",
  same,
  same,
  Buffer.from(request, "hex"),
);
call.on("data", () => undefined);
call.on("error", () => undefined);
call.on("status", ({ code, details }) => {
  console.log(code === 0 ? "OK" : `${code} ${details}`);
  process.exitCode = code === 0 ? 0 : 1;
  client.close();
});
