// Manages resources of an account: a secret, an API key and a browser token.
import Herm from "herm";

const client = new Herm();

// A secret is a value that an agent uses without seeing it. The server inserts the value into requests to the allowed
// hosts.
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

// Creates an API key for another part of your backend. No other call returns the key itself.
const key = await client.keys.create({ name: "reader", scopes: ["deployments:read"] });
const reader = new Herm({ apiKey: key.key, baseURL: client.baseURL });
console.log(`${(await reader.deployments.list()).data.length} deployments`);
await client.keys.delete(key.key_id);

// Creates a browser token for a web page. It is restricted to one deployment and expires after 15 minutes.
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
