import assert from "node:assert/strict";
import test from "node:test";
import Herm from "herm";
import { fakeClient, jsonResponse, errorResponse } from "../support/fake-fetch.js";
import { TestRuntime } from "../support/runtime.js";

const DEPLOYMENT = { customer_id: "acme", name: "Ada", system_prompt: "Help." };

for (const status of [408, 429, 500, 502, 503, 504]) {
  test(`${status} is retried`, async () => {
    const { client, requests } = fakeClient([
      errorResponse(status, "away"),
      errorResponse(status, "away"),
      jsonResponse({ status: "ready" }),
    ]);
    await client.deployments.get("dep_1");
    assert.equal(requests.length, 3);
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
  test(`${status} ${error} is not retried`, async () => {
    const { client, requests } = fakeClient([errorResponse(status, error), jsonResponse({})]);
    const failed = client.deployments.create(DEPLOYMENT);
    await assert.rejects(failed, (thrown: unknown) => {
      assert.ok(thrown instanceof Kind && thrown instanceof Herm.APIError && thrown instanceof Error);
      assert.deepEqual([thrown.status, thrown.code, thrown.requestId], [status, error, "req_1"]);
      return true;
    });
    assert.equal(requests.length, 1);
  });
}

test("a conflict with Retry-After is retried", async () => {
  const { client, requests } = fakeClient([
    errorResponse(409, "conflict", { "retry-after": "1" }),
    jsonResponse({}),
  ]);
  await client.deployments.create(DEPLOYMENT);
  assert.equal(requests.length, 2);
});

test("a broken connection is retried with the same idempotency key and body", async () => {
  const broken = new TypeError("fetch failed", { cause: new Error("ECONNRESET") });
  const { client, requests } = fakeClient([broken, errorResponse(500, "server_error"), jsonResponse({})]);
  await client.deployments.create(DEPLOYMENT);
  const keys = requests.map(request => request.headers.get("idempotency-key"));
  assert.deepEqual(keys, ["unique-1", "unique-1", "unique-1"]);
  assert.equal(new Set(requests.map(request => request.body)).size, 1);
  await client.deployments.create(DEPLOYMENT);
  assert.equal(requests.at(-1)?.headers.get("idempotency-key"), "unique-2");
});

test("the last error is thrown after all retries", async () => {
  const broken = new TypeError("fetch failed", { cause: new Error("connect ECONNREFUSED") });
  const { client, requests } = fakeClient([broken], { maxRetries: 2 });
  await assert.rejects(client.models.list(), (thrown: unknown) => {
    assert.ok(thrown instanceof Herm.APIConnectionError);
    assert.match(thrown.message, /GET \/v1\/models: connect ECONNREFUSED/);
    return true;
  });
  assert.equal(requests.length, 3);
  await assert.rejects(client.deployments.get("dep_1", { maxRetries: 0 }), Herm.APIConnectionError);
  assert.equal(requests.length, 4);
});

test("retry waits double up to a limit and have jitter", async () => {
  const waits = async (randomValue: number) => {
    const runtime = new TestRuntime(randomValue);
    const { client } = fakeClient([errorResponse(500, "server_error")], { maxRetries: 7 }, runtime);
    await assert.rejects(client.deployments.get("dep_1"), Herm.InternalServerError);
    return runtime.sleeps;
  };
  assert.deepEqual(await waits(0), [250, 500, 1000, 2000, 4000, 4000, 4000]);
  assert.deepEqual(await waits(0.5), [375, 750, 1500, 3000, 6000, 6000, 6000]);
});

test("Retry-After is accepted as seconds and as a date", async () => {
  const runtime = new TestRuntime(0);
  const date = new Date(runtime.now() + 20_000).toUTCString();
  const replies = [
    errorResponse(429, "rate_limited", { "retry-after": "7" }),
    errorResponse(503, "unavailable", { "retry-after": date }),
    errorResponse(503, "unavailable", { "retry-after": "nonsense" }),
    jsonResponse({}),
  ];
  const { client } = fakeClient(replies, {}, runtime);
  await client.deployments.get("dep_1");
  assert.deepEqual(runtime.sleeps, [7_000, 13_000, 1_000]);
});

test("a Retry-After over a minute is not retried", async () => {
  const { client, requests } = fakeClient([errorResponse(429, "rate_limited", { "retry-after": "3600" })]);
  await assert.rejects(client.deployments.get("dep_1"), Herm.RateLimitError);
  assert.equal(requests.length, 1);
});

test("a truncated response is retried", async () => {
  const cut = new Response(
    new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode('{"name":'));
        controller.error(new TypeError("terminated"));
      },
    }),
  );
  const { client, requests } = fakeClient([() => cut, jsonResponse({ name: "Ada" })]);
  assert.equal((await client.deployments.get("dep_1")).name, "Ada");
  assert.equal(requests.length, 2);
});

test("a request that times out is aborted and retried", async () => {
  const never = (request: { signal: AbortSignal }) =>
    new Promise<Response>((_, reject) =>
      request.signal.addEventListener("abort", () => reject(new Error("aborted"))),
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

test("a signal aborts a request and its retries", async () => {
  const ending = new AbortController();
  const { client, requests } = fakeClient([
    () => {
      ending.abort();
      throw new TypeError("aborted");
    },
  ]);
  await assert.rejects(client.deployments.get("dep_1", { signal: ending.signal }), Herm.APIUserAbortError);
  await assert.rejects(client.deployments.get("dep_1", { signal: ending.signal }), Herm.APIUserAbortError);
  assert.equal(requests.length, 1);
});

test("a deletion whose response was lost succeeds if the retry finds nothing", async () => {
  const broken = new TypeError("fetch failed");
  const lost = fakeClient([broken, errorResponse(404, "not_found")]).client;
  assert.deepEqual(await lost.deployments.delete("dep_1"), { deployment_id: "dep_1", status: "deleted" });
  // The 404 is thrown if the first attempt cannot have deleted the deployment. It is also thrown for a deletion with
  // `retain_filesystem`, because the result must contain the snapshot's id, which a 404 does not contain.
  const refused = fakeClient([errorResponse(503, "unavailable"), errorResponse(404, "not_found")]).client;
  await assert.rejects(refused.deployments.delete("dep_1"), Herm.NotFoundError);
  const retained = fakeClient([broken, errorResponse(404, "not_found")]).client;
  await assert.rejects(retained.deployments.delete("dep_1", { retain_filesystem: true }), Herm.NotFoundError);
});

test("a stream is not retried, but all other contents are", async () => {
  const stream = () => new Blob(["abc"]).stream();
  const once = fakeClient([errorResponse(503, "unavailable"), jsonResponse({})]);
  await assert.rejects(once.client.files.write("dep_1", "a.txt", stream()), Herm.InternalServerError);
  assert.equal(once.requests.length, 1);
  for (const content of ["abc", new TextEncoder().encode("abc"), new Blob(["abc"])]) {
    const again = fakeClient([errorResponse(503, "unavailable"), jsonResponse({})]);
    await again.client.files.write("dep_1", "a.txt", content);
    assert.deepEqual(
      again.requests.map(request => request.body),
      [content, content],
    );
  }
});
