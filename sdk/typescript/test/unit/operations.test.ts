import assert from "node:assert/strict";
import test from "node:test";
import Herm from "herm";
import { fakeClient, jsonResponse } from "../support/fake-fetch.js";
import { OPERATIONS } from "../support/document.js";

const BODY = { customer_id: "a", name: "b", system_prompt: "c" };

/**
 * Maps each operation of the OpenAPI document to the name of its client method and to a function that calls this
 * method.
 */
const METHODS: Record<string, [method: string, call: (client: Herm) => PromiseLike<unknown>]> = {
  "POST /v1/deployments": ["deployments.create", c => c.deployments.create(BODY)],
  "GET /v1/deployments": ["deployments.list", c => c.deployments.list()],
  "GET /v1/deployments/{}": ["deployments.get", c => c.deployments.get("x")],
  "PATCH /v1/deployments/{}": ["deployments.update", c => c.deployments.update("x", { name: "b" })],
  "DELETE /v1/deployments/{}": ["deployments.delete", c => c.deployments.delete("x")],
  "POST /v1/deployments/{}/retry": ["deployments.retry", c => c.deployments.retry("x")],
  "POST /v1/deployments/{}/messages": [
    "deployments.messages.send",
    c => c.deployments.messages.send("x", { content: "hi" }),
  ],
  "GET /v1/deployments/{}/events": ["deployments.events.list", c => c.deployments.events.list("x")],
  "POST /v1/deployments/{}/threads": ["threads.create", c => c.threads.create("x")],
  "GET /v1/deployments/{}/threads": ["threads.list", c => c.threads.list("x")],
  "GET /v1/deployments/{}/threads/{}": ["threads.get", c => c.threads.get("x", "x")],
  "PATCH /v1/deployments/{}/threads/{}": ["threads.update", c => c.threads.update("x", "x", { title: "t" })],
  "DELETE /v1/deployments/{}/threads/{}": ["threads.delete", c => c.threads.delete("x", "x")],
  "GET /v1/deployments/{}/runs": ["runs.list", c => c.runs.list("x")],
  "GET /v1/deployments/{}/runs/{}": ["runs.get", c => c.runs.get("x", "x")],
  "GET /v1/deployments/{}/runs/{}/steps": ["runs.steps", c => c.runs.steps("x", "x")],
  "POST /v1/deployments/{}/runs/{}/cancel": ["runs.cancel", c => c.runs.cancel("x", "x")],
  "GET /v1/steering": ["steering.listAll", c => c.steering.listAll()],
  "GET /v1/deployments/{}/steering": ["steering.list", c => c.steering.list("x")],
  "GET /v1/deployments/{}/steering/{}": ["steering.get", c => c.steering.get("x", "x")],
  "POST /v1/deployments/{}/steering/{}": [
    "steering.answer",
    c => c.steering.answer("x", "x", { decision: "approve" }),
  ],
  "GET /v1/deployments/{}/approvals": ["approvals.list", c => c.approvals.list("x")],
  "DELETE /v1/deployments/{}/approvals": ["approvals.deleteAll", c => c.approvals.deleteAll("x")],
  "DELETE /v1/deployments/{}/approvals/{}": ["approvals.delete", c => c.approvals.delete("x", "x")],
  "GET /v1/deployments/{}/files": ["files.list", c => c.files.list("x")],
  "GET /v1/deployments/{}/files/content": ["files.read", c => c.files.read("x", "p")],
  "PUT /v1/deployments/{}/files": ["files.write", c => c.files.write("x", "p", "text")],
  "DELETE /v1/deployments/{}/files": ["files.delete", c => c.files.delete("x", "p")],
  "POST /v1/deployments/{}/skills": [
    "skills.add",
    c => c.skills.add("x", { source: "inline", name: "n", content: "t" }),
  ],
  "GET /v1/deployments/{}/skills": ["skills.list", c => c.skills.list("x")],
  "GET /v1/deployments/{}/skills/{}": ["skills.get", c => c.skills.get("x", "x")],
  "PUT /v1/deployments/{}/skills/{}": ["skills.update", c => c.skills.update("x", "x", { content: "t" })],
  "DELETE /v1/deployments/{}/skills/{}": ["skills.remove", c => c.skills.remove("x", "x")],
  "GET /v1/deployments/{}/tools": ["tools.list", c => c.tools.list("x")],
  "PATCH /v1/deployments/{}/tools/{}": ["tools.update", c => c.tools.update("x", "x", { enabled: false })],
  "POST /v1/deployments/{}/mcp_servers": [
    "mcpServers.create",
    c => c.mcpServers.create("x", { name: "n", url: "https://mcp.example" }),
  ],
  "GET /v1/deployments/{}/mcp_servers": ["mcpServers.list", c => c.mcpServers.list("x")],
  "PATCH /v1/deployments/{}/mcp_servers/{}": ["mcpServers.update", c => c.mcpServers.update("x", "x", {})],
  "DELETE /v1/deployments/{}/mcp_servers/{}": ["mcpServers.delete", c => c.mcpServers.delete("x", "x")],
  "GET /v1/snapshots": ["snapshots.list", c => c.snapshots.list()],
  "GET /v1/snapshots/{}": ["snapshots.get", c => c.snapshots.get("x")],
  "GET /v1/snapshots/{}/content": ["snapshots.content", c => c.snapshots.content("x")],
  "DELETE /v1/snapshots/{}": ["snapshots.delete", c => c.snapshots.delete("x")],
  "POST /v1/secrets": ["secrets.create", c => c.secrets.create({ name: "n", value: "v" })],
  "GET /v1/secrets": ["secrets.list", c => c.secrets.list()],
  "PATCH /v1/secrets/{}": ["secrets.update", c => c.secrets.update("x", { value: "v" })],
  "DELETE /v1/secrets/{}": ["secrets.delete", c => c.secrets.delete("x")],
  "POST /v1/keys": ["keys.create", c => c.keys.create({ name: "n", scopes: ["usage:read"] })],
  "GET /v1/keys": ["keys.list", c => c.keys.list()],
  "DELETE /v1/keys/{}": ["keys.delete", c => c.keys.delete("x")],
  "POST /v1/tokens": [
    "tokens.create",
    c => c.tokens.create({ deployment_id: "x", scopes: ["messages:send"] }),
  ],
  "GET /v1/models": ["models.list", c => c.models.list()],
};

/** Operations that only operators need, so the client has no methods for them. */
const NOT_FOR_CLIENTS = ["GET /healthz", "GET /readyz", "GET /metrics", "GET /openapi.json"];

/**
 * Methods that are not in `METHODS`: they use several operations, or an operation that `METHODS` maps to another
 * method.
 */
const HELPERS = [
  "deployments.events.stream",
  "deployments.messages.sendAndWait",
  "deployments.waitUntilReady",
];

function methodsOf(resource: object, name: string): string[] {
  const own = Object.getOwnPropertyNames(Object.getPrototypeOf(resource)).filter(
    method => method !== "constructor",
  );
  const parts = Object.entries(resource).filter(([, part]) => typeof part === "object" && part !== null);
  return [
    ...own.map(method => `${name}${method}`),
    ...parts.flatMap(([part, inner]) => methodsOf(inner as object, `${name}${part}.`)),
  ];
}

test("each operation of the server has a method", () => {
  const missing = [...OPERATIONS].filter(
    ([operation]) => !(operation in METHODS) && !NOT_FOR_CLIENTS.includes(operation),
  );
  assert.deepEqual(missing, [], "add a method, and its row in the table of this test");
});

test("each method has an operation", () => {
  const unknown = Object.keys(METHODS).filter(operation => !OPERATIONS.has(operation));
  assert.deepEqual(unknown, [], "the OpenAPI document does not have these operations");
  const known = [...Object.values(METHODS).map(([method]) => method), ...HELPERS].sort();
  assert.deepEqual(methodsOf(fakeClient([]).client, "").sort(), known);
});

for (const [operation, [method, call]] of Object.entries(METHODS)) {
  test(`${method} requests ${operation}`, async () => {
    const { client, requests } = fakeClient([jsonResponse({ data: [], next_cursor: null })]);
    await call(client);
    const requested = `${requests[0]?.method} ${requests[0]?.url.pathname}`;
    assert.equal(requested.replaceAll("/x", "/{}"), operation);
  });
}
