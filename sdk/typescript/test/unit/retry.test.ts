import assert from "node:assert/strict";
import test from "node:test";
import Herm from "herm";
import { fakeClient, json, refusal } from "../support/fake-fetch.js";
import { TestRuntime } from "../support/runtime.js";

const DEPLOYMENT = { customer_id: "acme", name: "Ada", system_prompt: "Help." };

for (const status of [408, 429, 500, 502, 503, 504]) {
  test(`${status} is tried again`, async () => {
    const { client, seen } = fakeClient([
      refusal(status, "away"),
      refusal(status, "away"),
      json({ status: "ready" }),
    ]);
    await client.deployments.get("dep_1");
    assert.equal(seen.length, 3);
  });
}

for (const [status, error, Kind] of [
  [400, "validation_error", Herm.BadRequestError],
  [401, "unauthorized", Herm.AuthenticationError],
  [403, "forbidden", Herm.PermissionDeniedError],
  [404, "not_found", Herm.NotFoundError],
  [409, "idempotency_conflict", Herm.ConflictError],
  [409, "deployment_not_ready", Herm.ConflictError],
  [422, "invalid_skill", Herm.UnprocessableEntityError],
  [402, "insufficient_credits", Herm.APIError],
] as const) {
  test(`${status} ${error} is not tried again`, async () => {
    const { client, seen } = fakeClient([refusal(status, error), json({})]);
    const failed = client.deployments.create(DEPLOYMENT);
    await assert.rejects(failed, (thrown: unknown) => {
      assert.ok(thrown instanceof Kind && thrown instanceof Herm.APIError && thrown instanceof Error);
      assert.deepEqual([thrown.status, thrown.code, thrown.requestId], [status, error, "req_1"]);
      return true;
    });
    assert.equal(seen.length, 1);
  });
}

test("a conflict that says when to come back is in flight, and tried again", async () => {
  const { client, seen } = fakeClient([refusal(409, "conflict", { "retry-after": "1" }), json({})]);
  await client.deployments.create(DEPLOYMENT);
  assert.equal(seen.length, 2);
});

test("a broken connection is tried again, with one idempotency key and the same body", async () => {
  const broken = new TypeError("fetch failed", { cause: new Error("ECONNRESET") });
  const { client, seen } = fakeClient([broken, refusal(500, "server_error"), json({})]);
  await client.deployments.create(DEPLOYMENT);
  const keys = seen.map(one => one.headers.get("idempotency-key"));
  assert.deepEqual(keys, ["unique-1", "unique-1", "unique-1"]);
  assert.equal(new Set(seen.map(one => one.body)).size, 1);
  await client.deployments.create(DEPLOYMENT);
  assert.equal(seen.at(-1)?.headers.get("idempotency-key"), "unique-2");
});

test("retries are used up, and the last error says what it was", async () => {
  const broken = new TypeError("fetch failed", { cause: new Error("connect ECONNREFUSED") });
  const { client, seen } = fakeClient([broken], { maxRetries: 2 });
  await assert.rejects(client.models.list(), (thrown: unknown) => {
    assert.ok(thrown instanceof Herm.APIConnectionError);
    assert.match(thrown.message, /GET \/v1\/models: connect ECONNREFUSED/);
    return true;
  });
  assert.equal(seen.length, 3);
  await assert.rejects(client.deployments.get("dep_1", { maxRetries: 0 }), Herm.APIConnectionError);
  assert.equal(seen.length, 4);
});

test("waits double, up to a limit, and are jittered", async () => {
  const waits = async (dice: number) => {
    const runtime = new TestRuntime(dice);
    const { client } = fakeClient([refusal(500, "server_error")], { maxRetries: 7 }, runtime);
    await assert.rejects(client.deployments.get("dep_1"), Herm.InternalServerError);
    return runtime.sleeps;
  };
  assert.deepEqual(await waits(0), [250, 500, 1000, 2000, 4000, 4000, 4000]);
  assert.deepEqual(await waits(0.5), [375, 750, 1500, 3000, 6000, 6000, 6000]);
});

test("Retry-After is honoured as seconds and as a date", async () => {
  const runtime = new TestRuntime(0);
  const date = new Date(runtime.now() + 20_000).toUTCString();
  const replies = [
    refusal(429, "rate_limited", { "retry-after": "7" }),
    refusal(503, "unavailable", { "retry-after": date }),
    refusal(503, "unavailable", { "retry-after": "nonsense" }),
    json({}),
  ];
  const { client } = fakeClient(replies, {}, runtime);
  await client.deployments.get("dep_1");
  assert.deepEqual(runtime.sleeps, [7_000, 13_000, 1_000]);
});

test("a server that asks for too long a wait gets none", async () => {
  const { client, seen } = fakeClient([refusal(429, "rate_limited", { "retry-after": "3600" })]);
  await assert.rejects(client.deployments.get("dep_1"), Herm.RateLimitError);
  assert.equal(seen.length, 1);
});

test("an answer that is cut off is asked for again", async () => {
  const cut = new Response(
    new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode('{"name":'));
        controller.error(new TypeError("terminated"));
      },
    }),
  );
  const { client, seen } = fakeClient([() => cut, json({ name: "Ada" })]);
  assert.equal((await client.deployments.get("dep_1")).name, "Ada");
  assert.equal(seen.length, 2);
});

test("a request that takes too long is ended and tried again", async () => {
  const never = (seen: { signal: AbortSignal }) =>
    new Promise<Response>((_, reject) =>
      seen.signal.addEventListener("abort", () => reject(new Error("aborted"))),
    );
  const { client, runtime } = fakeClient([never], { timeout: 1234, maxRetries: 1 });
  const failed = assert.rejects(client.deployments.get("dep_1"), (thrown: unknown) => {
    assert.ok(thrown instanceof Herm.APIConnectionTimeoutError && thrown instanceof Herm.APIConnectionError);
    assert.match(thrown.message, /within 1234 ms/);
    return true;
  });
  await runtime.fire(1234);
  await runtime.fire(1234);
  await failed;
  assert.deepEqual(runtime.timers, []);
});

test("a signal ends a request and its retries", async () => {
  const ending = new AbortController();
  const { client, seen } = fakeClient([
    () => {
      ending.abort();
      throw new TypeError("aborted");
    },
  ]);
  await assert.rejects(client.deployments.get("dep_1", { signal: ending.signal }), Herm.APIUserAbortError);
  await assert.rejects(client.deployments.get("dep_1", { signal: ending.signal }), Herm.APIUserAbortError);
  assert.equal(seen.length, 1);
});

test("a deletion whose answer was lost is done when it is found gone", async () => {
  const broken = new TypeError("fetch failed");
  const lost = fakeClient([broken, refusal(404, "not_found")]).client;
  assert.deepEqual(await lost.deployments.delete("dep_1"), { deployment_id: "dep_1", status: "deleted" });
  // Where nothing can have happened yet, or more than the status is owed, it is told as it is.
  const refused = fakeClient([refusal(503, "unavailable"), refusal(404, "not_found")]).client;
  await assert.rejects(refused.deployments.delete("dep_1"), Herm.NotFoundError);
  const retained = fakeClient([broken, refusal(404, "not_found")]).client;
  await assert.rejects(retained.deployments.delete("dep_1", { retain_filesystem: true }), Herm.NotFoundError);
});

test("a stream is sent once, all other contents again", async () => {
  const stream = () => new Blob(["abc"]).stream();
  const once = fakeClient([refusal(503, "unavailable"), json({})]);
  await assert.rejects(once.client.files.write("dep_1", "a.txt", stream()), Herm.InternalServerError);
  assert.equal(once.seen.length, 1);
  for (const content of ["abc", new TextEncoder().encode("abc"), new Blob(["abc"])]) {
    const again = fakeClient([refusal(503, "unavailable"), json({})]);
    await again.client.files.write("dep_1", "a.txt", content);
    assert.deepEqual(
      again.seen.map(one => one.body),
      [content, content],
    );
  }
});
