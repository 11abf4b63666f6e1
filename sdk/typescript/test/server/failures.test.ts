import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import Herm from "herm";
import { FailingProxy } from "../support/failing-proxy.js";
import { TestServer, TOUR } from "../support/server.js";

let server: TestServer;
let proxy: FailingProxy;
before(async () => {
  server = await TestServer.start();
  proxy = await FailingProxy.start(server.url);
});
after(async () => {
  proxy?.stop();
  await server?.remove();
});

async function deploymentsOf(customer_id: string): Promise<string[]> {
  const ids: string[] = [];
  for await (const { deployment_id } of server.client().deployments.list({ customer_id }))
    ids.push(deployment_id);
  return ids;
}

test("failures before the server receives the request only cost retries", async () => {
  const client = server.client({ baseURL: proxy.url });
  proxy.requests.length = 0;
  proxy.failures.push(
    { kind: "break_before" },
    { kind: "respond", status: 503, headers: { "retry-after": "1" } },
    { kind: "respond", status: 409, headers: { "retry-after": "1" } },
    { kind: "respond", status: 429 },
  );
  const { deployment_id } = await client.deployments.create({ ...TOUR, customer_id: "before" });
  assert.deepEqual(await deploymentsOf("before"), [deployment_id]);
  assert.equal(proxy.requests.length, 5);
  assert.equal(new Set(proxy.requests.map(request => request.idempotencyKey + request.body)).size, 1);
  assert.ok(proxy.requests[0]?.idempotencyKey);
});

test("the number of retries is limited", async () => {
  const client = server.client({ baseURL: proxy.url, maxRetries: 2 });
  proxy.failures.push({ kind: "break_before" }, { kind: "respond", status: 500 }, { kind: "break_before" });
  await assert.rejects(client.deployments.list(), Herm.APIConnectionError);
  assert.deepEqual(proxy.failures, []);
});

test("a conflict without Retry-After is not retried", async () => {
  const client = server.client({ baseURL: proxy.url });
  proxy.failures.push({ kind: "respond", status: 409 });
  await assert.rejects(client.deployments.create({ ...TOUR, customer_id: "conflict" }), Herm.ConflictError);
  assert.deepEqual(await deploymentsOf("conflict"), []);
});

test("a create whose response is lost acts once", async () => {
  const client = server.client({ baseURL: proxy.url });
  proxy.requests.length = 0;
  proxy.failures.push({ kind: "break_after" }, { kind: "break_after" });
  const { deployment_id } = await client.deployments.create({ ...TOUR, customer_id: "lost" });
  assert.deepEqual(await deploymentsOf("lost"), [deployment_id]);
  assert.deepEqual(
    [proxy.requests.length, new Set(proxy.requests.map(request => request.idempotencyKey)).size],
    [3, 1],
  );
});

test("reusing an idempotency key for another request is a conflict and is not retried", async () => {
  const client = server.client({ baseURL: proxy.url });
  const options = { idempotencyKey: "once" };
  await client.deployments.create({ ...TOUR, customer_id: "one" }, options);
  proxy.requests.length = 0;
  await assert.rejects(
    client.deployments.create({ ...TOUR, customer_id: "other" }, options),
    (thrown: unknown) => {
      assert.ok(thrown instanceof Herm.ConflictError);
      assert.equal(thrown.code, "idempotency_conflict");
      return true;
    },
  );
  assert.equal(proxy.requests.length, 1);
});

test("a deletion whose response is lost succeeds", async () => {
  const client = server.client({ baseURL: proxy.url });
  const { deployment_id } = await server.client().deployments.create({ ...TOUR, customer_id: "gone" });
  proxy.failures.push({ kind: "break_after" });
  assert.deepEqual(await client.deployments.delete(deployment_id), { deployment_id, status: "deleted" });
  assert.deepEqual(await deploymentsOf("gone"), []);
});

test("error responses of the server have the matching class, code and details", async () => {
  const client = server.client();
  await assert.rejects(
    client.deployments.create({ customer_id: "", name: "", system_prompt: "x" }),
    (thrown: unknown) => {
      assert.ok(thrown instanceof Herm.BadRequestError);
      assert.equal(thrown.code, "validation_error");
      assert.deepEqual(thrown.details.map(field => field.path).sort(), ["customer_id", "name"]);
      assert.match(thrown.requestId ?? "", /^req_/);
      return true;
    },
  );
  const stranger = new Herm({ apiKey: "herm_sk_unknown", baseURL: server.url });
  await assert.rejects(stranger.deployments.list(), Herm.AuthenticationError);
  await assert.rejects(client.deployments.get("dep_00000000000000000000000000"), Herm.NotFoundError);
});
