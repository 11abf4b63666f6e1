import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import Herm from "herm";
import { FaultProxy } from "../support/fault-proxy.js";
import { TestServer, TOUR } from "../support/server.js";

let server: TestServer;
let proxy: FaultProxy;
before(async () => {
  server = await TestServer.start();
  proxy = await FaultProxy.start(server.url);
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

test("faults before the server has the request cost retries, and nothing else", async () => {
  const client = server.client({ baseURL: proxy.url });
  proxy.seen.length = 0;
  proxy.fates.push(
    { kind: "break_before" },
    { kind: "answer", status: 503, headers: { "retry-after": "1" } },
    { kind: "answer", status: 409, headers: { "retry-after": "1" } },
    { kind: "answer", status: 429 },
  );
  const { deployment_id } = await client.deployments.create({ ...TOUR, customer_id: "before" });
  assert.deepEqual(await deploymentsOf("before"), [deployment_id]);
  assert.equal(proxy.seen.length, 5);
  assert.equal(new Set(proxy.seen.map(one => one.idempotencyKey + one.body)).size, 1);
  assert.ok(proxy.seen[0]?.idempotencyKey);
});

test("retries have an end", async () => {
  const client = server.client({ baseURL: proxy.url, maxRetries: 2 });
  proxy.fates.push({ kind: "break_before" }, { kind: "answer", status: 500 }, { kind: "break_before" });
  await assert.rejects(client.deployments.list(), Herm.APIConnectionError);
  assert.deepEqual(proxy.fates, []);
});

test("a conflict that lasts is not tried again", async () => {
  const client = server.client({ baseURL: proxy.url });
  proxy.fates.push({ kind: "answer", status: 409 });
  await assert.rejects(client.deployments.create({ ...TOUR, customer_id: "conflict" }), Herm.ConflictError);
  assert.deepEqual(await deploymentsOf("conflict"), []);
});

test("a create whose answer is lost is made once", async () => {
  const client = server.client({ baseURL: proxy.url });
  proxy.seen.length = 0;
  proxy.fates.push({ kind: "break_after" }, { kind: "break_after" });
  const { deployment_id } = await client.deployments.create({ ...TOUR, customer_id: "lost" });
  assert.deepEqual(await deploymentsOf("lost"), [deployment_id]);
  assert.deepEqual([proxy.seen.length, new Set(proxy.seen.map(one => one.idempotencyKey)).size], [3, 1]);
});

test("one key for two different requests is a conflict, which is not tried again", async () => {
  const client = server.client({ baseURL: proxy.url });
  const options = { idempotencyKey: "once" };
  await client.deployments.create({ ...TOUR, customer_id: "one" }, options);
  proxy.seen.length = 0;
  await assert.rejects(
    client.deployments.create({ ...TOUR, customer_id: "other" }, options),
    (thrown: unknown) => {
      assert.ok(thrown instanceof Herm.ConflictError);
      assert.equal(thrown.code, "idempotency_conflict");
      return true;
    },
  );
  assert.equal(proxy.seen.length, 1);
});

test("a deletion whose answer is lost is done", async () => {
  const client = server.client({ baseURL: proxy.url });
  const { deployment_id } = await server.client().deployments.create({ ...TOUR, customer_id: "gone" });
  proxy.fates.push({ kind: "break_after" });
  assert.deepEqual(await client.deployments.delete(deployment_id), { deployment_id, status: "deleted" });
  assert.deepEqual(await deploymentsOf("gone"), []);
});

test("the server's own refusals have their classes, codes and details", async () => {
  const client = server.client();
  await assert.rejects(
    client.deployments.create({ customer_id: "", name: "", system_prompt: "x" }),
    (thrown: unknown) => {
      assert.ok(thrown instanceof Herm.BadRequestError);
      assert.equal(thrown.code, "validation_error");
      assert.deepEqual(thrown.details.map(fault => fault.path).sort(), ["customer_id", "name"]);
      assert.match(thrown.requestId ?? "", /^req_/);
      return true;
    },
  );
  const stranger = new Herm({ apiKey: "herm_sk_unknown", baseURL: server.url });
  await assert.rejects(stranger.deployments.list(), Herm.AuthenticationError);
  await assert.rejects(client.deployments.get("dep_00000000000000000000000000"), Herm.NotFoundError);
});
