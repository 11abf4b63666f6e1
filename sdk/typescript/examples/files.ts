// Reads and writes files in an agent's workspace.
import Herm from "herm";

const client = new Herm();
const { deployment_id: id } = await client.deployments.create({
  customer_id: "acme",
  name: "Ada",
  system_prompt: "You are the assistant of Acme Ltd.",
  model: "demo/tour",
});

await client.files.write(id, "reports/november.csv", "item,sum\nbread,3\n");
await client.files.write(id, "reports/logo.bin", new Uint8Array([1, 2, 3]));
await client.files.write(id, "reports/blob.txt", new Blob(["from a blob"]));
await client.files.write(id, "reports/stream.txt", new Blob(["from a stream"]).stream());

const { entries } = await client.files.list(id, "reports");
console.log(entries.map(entry => `${entry.name}: ${entry.size} bytes`).join("\n"));

const report = await client.files.read(id, "reports/november.csv");
console.log(await report.text());
const sums = await client.files.read(id, "reports/november.csv", { range: { start: 9 } });
console.log(`from byte 9 on: ${await sums.text()}`);
const logo = await client.files.read(id, "reports/logo.bin");
console.log(`${(await logo.bytes()).length} bytes of a logo`);

// Writes the file only if it has not changed since it was read.
await client.files.write(id, "reports/november.csv", "item,sum\n", {
  ...(report.etag && { ifMatch: report.etag }),
});

await client.files.delete(id, "reports");
console.log(`${(await client.files.list(id)).entries.length} entries are left`);
await client.deployments.delete(id);
