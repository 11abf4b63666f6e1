// Holds several conversations with one agent. Each thread has its own history, and all threads share the files.
import Herm from "herm";

const client = new Herm();
const { deployment_id: id } = await client.deployments.create({
  customer_id: "acme",
  name: "Ada",
  system_prompt: "You are the assistant of Acme Ltd.",
  model: "demo/tour",
});

const thread = await client.threads.create(id, { title: "Invoices" });
const both = await Promise.all([
  client.deployments.messages.sendAndWait(id, { content: "About invoices.", thread_id: thread.thread_id }),
  client.deployments.messages.sendAndWait(id, { content: "About something else.", thread_id: "new" }),
]);
console.log(`Two threads worked in parallel: ${both.map(run => run.status).join(", ")}`);

await client.threads.update(id, thread.thread_id, { title: "Invoices of November" });
const { title, messages } = await client.threads.get(id, thread.thread_id);
console.log(`${title}: ${messages.map(message => message.role).join(", ")}`);

for await (const one of client.threads.list(id)) {
  console.log(`${one.thread_id}: ${one.message_count} messages, ${one.status}`);
}
await client.threads.delete(id, thread.thread_id);
await client.deployments.delete(id);
