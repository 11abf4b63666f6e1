// Configures the skills, tools and MCP servers of an agent.
import Herm from "herm";

const client = new Herm();
const { deployment_id: id } = await client.deployments.create({
  customer_id: "acme",
  name: "Ada",
  system_prompt: "You are the assistant of Acme Ltd.",
  model: "demo/tour",
});

// This file exists on the local disk, so the client reads it and sends its text with the request.
const skill = await client.skills.add(id, {
  source: "file",
  name: "refunds",
  path: "skills/refunds/SKILL.md",
});
const content = "---\nname: refunds\ndescription: How refunds are handled\n---\nAlways ask a person.\n";
await client.skills.update(id, skill.skill_id, { source: "inline", name: "refunds", content });
console.log((await client.skills.get(id, skill.skill_id)).content);
for await (const { name, description } of client.skills.list(id)) console.log(`${name}: ${description}`);
await client.skills.remove(id, skill.skill_id);

const shell = await client.tools.update(id, "shell", { permission: "always_ask" });
console.log(`${shell.name}: ${shell.permission}`);
for await (const tool of client.tools.list(id))
  console.log(`${tool.name} (${tool.origin}): ${tool.permission}`);

await client.mcpServers.create(id, { name: "shop", url: "https://mcp.shop.example/mcp" });
await client.mcpServers.update(id, "shop", { tools: ["list_orders"] });
for await (const server of client.mcpServers.list(id)) console.log(`${server.name}: ${server.url}`);
await client.mcpServers.delete(id, "shop");

await client.deployments.delete(id);
