// Creates an agent with many settings, then changes some of them.
import Herm from "herm";

const client = new Herm();

for await (const { provider, models, has_key } of client.models.list()) {
  console.log(`${provider}${has_key ? "" : " (no key)"}: ${models.join(", ")}`);
}

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
      tools: ["list_orders"], // if omitted, the agent may use all tools
      permission: "always_allow",
    },
  ],
  skills: [
    // This file exists on the local disk, so the client reads it and sends its text with the request.
    { source: "file", name: "refunds", path: "skills/refunds/SKILL.md" },
    {
      source: "inline",
      name: "tone",
      content: "---\nname: tone\ndescription: How we write to customers\n---\nShort and kind.\n",
    },
  ],
  features: { memory: true, dreaming: false, automations: true, steering: true, filesystem_webhooks: false },
  budget: { max_credits_per_run: 5, max_credits_per_day: 50 },
  steering: { expires_after_s: 3600, on_expiry: "deny" },
  dreaming: { mode: "review" },
  fallback_models: ["demo/tour"],
  metadata: { plan: "pro", region: "us" },
});
const id = deployment.deployment_id;
console.log(`skills: ${deployment.skills.map(skill => `${skill.name} is ${skill.status}`).join(", ")}`);

const updated = await client.deployments.update(id, {
  name: "Ada Lovelace",
  mcp_servers: [], // arrays are replaced as a whole
  metadata: { region: null, tier: "gold" }, // in maps, null removes a key; omitted keys stay
  features: { steering: null }, // null resets the feature to its default
});
console.log(
  `${updated.name}: ${JSON.stringify(updated.metadata)}, ${updated.mcp_servers?.length} MCP servers`,
);

const got = await client.deployments.get(id);
console.log(`unchanged since: ${got.updated_at === updated.updated_at}`);

await client.deployments.delete(id);
