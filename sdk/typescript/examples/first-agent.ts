// Creates an agent for one customer, lets it work, reads a file that it wrote, and deletes it.
import Herm from "herm";

const client = new Herm(); // reads HERM_API_KEY and HERM_BASE_URL

const deployment = await client.deployments.create({
  customer_id: "acme",
  name: "Ada",
  system_prompt: "You are the assistant of Acme Ltd.",
  model: "demo/tour", // a canned script that needs no key; a real model is "anthropic/claude-sonnet-4.5"
  metadata: { plan: "pro" },
});
const id = deployment.deployment_id;
await client.deployments.waitUntilReady(id);

const run = await client.deployments.messages.sendAndWait(id, { content: "Show me what you can do." });
console.log(`The agent says: ${run.text}`);

const file = await client.files.read(id, "tour/hello.txt");
console.log(`The file says: ${await file.text()}`);

for await (const { name, status } of client.deployments.list({ customer_id: "acme" })) {
  console.log(`${name} is ${status}`);
}

await client.deployments.delete(id);
try {
  await client.deployments.get(id);
} catch (error) {
  if (!(error instanceof Herm.NotFoundError)) throw error;
  console.log("The agent is deleted.");
}
