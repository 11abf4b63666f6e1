// An agent with all there is to say about it, and its changes.
import Herm from "herm";

const client = new Herm();

const secret = await client.secrets.create({
  name: "Shop token",
  value: "the-real-token",
  allowed_hosts: ["mcp.shop.example"],
});

const deployment = await client.deployments.create({
  customer_id: "acme",
  name: "Ada",
  system_prompt: "You are the assistant of Acme Ltd.",
  model: "demo/tour",
  runtime: "hermes",
  sandbox: { enabled: true, type: "docker", persistent_filesystem: true },
  mcp_servers: [
    {
      name: "shop",
      url: "https://mcp.shop.example/mcp",
      tools: ["list_orders"],
      headers: { Authorization: "Bearer ${SHOP_TOKEN}" }, // put in by the server; the agent never sees it
    },
  ],
  skills: [
    // Its text is on this machine's disk: it is sent along.
    { source: "file", name: "refunds", path: "skills/refunds/SKILL.md" },
    {
      source: "inline",
      name: "tone",
      content: "---\nname: tone\ndescription: How we write to customers\n---\nShort and kind.\n",
    },
  ],
  secrets: { SHOP_TOKEN: secret.secret_id },
  features: { memory: true, dreaming: false, automations: true, steering: true, filesystem_webhooks: false },
  metadata: { plan: "pro" },
});
const id = deployment.deployment_id;
console.log(`skills: ${deployment.skills.map(skill => `${skill.name} is ${skill.status}`).join(", ")}`);

const updated = await client.deployments.update(id, {
  name: "Ada Lovelace",
  mcp_servers: [], // arrays are replaced whole
  secrets: { SHOP_TOKEN: null }, // in maps, null removes
  metadata: { region: "eu" }, // and the other keys stay
});
console.log(
  `${updated.name}: ${JSON.stringify(updated.metadata)}, ${updated.mcp_servers.length} MCP servers`,
);

const got = await client.deployments.get(id);
console.log(`unchanged since: ${got.updated_at === updated.updated_at}`);

await client.deployments.delete(id);
await client.secrets.delete(secret.secret_id);
