// Follows an agent's work live through its event stream.
import Herm from "herm";

const client = new Herm();
const { deployment_id: id } = await client.deployments.create({
  customer_id: "acme",
  name: "Ada",
  system_prompt: "You are the assistant of Acme Ltd.",
  model: "demo/tour",
});

// When the promise has resolved, the stream is connected and misses no later event.
const stream = await client.deployments.events.stream(id);
const { run_id } = await client.deployments.messages.send(id, { content: "Show me what you can do." });

// If the connection breaks, the stream reconnects and resumes after the last event. Leaving the loop with `break` ends
// the stream.
for await (const event of stream) {
  switch (event.type) {
    case "token":
      process.stdout.write(event.delta);
      break;
    case "tool_call":
      console.log(`\n[${event.tool} ${JSON.stringify(event.arguments)}]`);
      break;
    case "tool_result":
      console.log(`[${event.tool} took ${event.duration_ms} ms]`);
      break;
  }
  if (event.type === "run_status" && event.status === "completed") break;
}

// Reads the same events again from the event log.
const page = await client.deployments.events.list(id, { run_id, types: ["message"] });
console.log(`\n${page.data.length} messages, the first: ${JSON.stringify(page.data[0])}`);

const { usage } = await client.runs.get(id, run_id);
console.log(`${usage.model_calls} model calls, ${usage.tool_calls} tool calls`);
for await (const step of client.runs.steps(id, run_id)) {
  console.log(`step ${step.step}: ${step.kind} ${step.name}, ${step.status}`);
}

await client.deployments.delete(id);
