// Secrets, keys, and tokens for browsers.
import Herm from "herm";

const client = new Herm();

// A value that an agent uses without seeing it: it is put in on the way to the hosts it is allowed for.
const secret = await client.secrets.create({
  name: "Shop token",
  value: "first",
  allowed_hosts: ["mcp.shop.example"],
});
const shopper = await client.deployments.create({
  customer_id: "acme",
  name: "Shopper",
  system_prompt: "You are the assistant of Acme Ltd.",
  model: "demo/tour",
  secrets: { SHOP_TOKEN: secret.secret_id },
  mcp_servers: [
    { name: "shop", url: "https://mcp.shop.example/mcp", headers: { Authorization: "Bearer ${SHOP_TOKEN}" } },
  ],
});
await client.secrets.update(secret.secret_id, { value: "rotated" });
for await (const { name, allowed_hosts } of client.secrets.list())
  console.log(`${name}: ${allowed_hosts.join(", ")}`);
await client.deployments.delete(shopper.deployment_id);
await client.secrets.delete(secret.secret_id);

// A key for another part of your backend. It is shown this once.
const key = await client.keys.create({ name: "reader", scopes: ["deployments:read"] });
const reader = new Herm({ apiKey: key.key, baseURL: client.baseURL });
console.log(`${(await reader.deployments.list()).data.length} deployments`);
await client.keys.delete(key.key_id);

// A token that a page can be given: for one deployment, for a quarter of an hour.
const { deployment_id } = await client.deployments.create({
  customer_id: "acme",
  name: "Ada",
  system_prompt: "You are the assistant of Acme Ltd.",
  model: "demo/tour",
});
const { token } = await client.tokens.create({
  deployment_id,
  scopes: ["messages:send", "deployments:read"],
});
const page = new Herm({ apiKey: token, baseURL: client.baseURL });
const run = await page.deployments.messages.sendAndWait(deployment_id, { content: "Show me." });
console.log(run.text);
await client.deployments.delete(deployment_id);
