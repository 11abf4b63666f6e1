import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { inspect } from "node:util";
import Herm, { VERSION } from "herm";
import { fakeClient, jsonResponse, KEY, errorResponse } from "../support/fake-fetch.js";

function withEnvironment(variables: Record<string, string | undefined>, act: () => void): void {
  const before = { ...process.env };
  for (const name of ["HERM_API_KEY", "PRISM_API_KEY", "HERM_BASE_URL"]) delete process.env[name];
  Object.assign(process.env, variables);
  try {
    act();
  } finally {
    process.env = before;
  }
}

async function keyUsed(options: { apiKey?: string } = {}): Promise<string | null> {
  let used: string | null = null;
  const fetch = (async (_: unknown, init: RequestInit) => {
    used = new Headers(init.headers).get("authorization");
    return jsonResponse({});
  }) as typeof globalThis.fetch;
  await new Herm({ ...options, fetch }).deployments.get("dep_1");
  return used;
}

test("the key is taken from the option, then HERM_API_KEY, then PRISM_API_KEY", async () => {
  const used: Promise<string | null>[] = [];
  withEnvironment({ HERM_API_KEY: "h\n", PRISM_API_KEY: "p" }, () =>
    used.push(keyUsed({ apiKey: "o" }), keyUsed()),
  );
  withEnvironment({ PRISM_API_KEY: "p" }, () => used.push(keyUsed()));
  assert.deepEqual(await Promise.all(used), ["Bearer o", "Bearer h", "Bearer p"]);
  withEnvironment({}, () => assert.throws(() => new Herm(), /HERM_API_KEY/));
});

test("the server URL is taken from the option, then HERM_BASE_URL, then the local default", () => {
  withEnvironment({ HERM_API_KEY: "h", HERM_BASE_URL: "https://herm.example/api/" }, () => {
    assert.equal(new Herm().baseURL, "https://herm.example/api");
    assert.equal(new Herm({ baseURL: "http://[::1]:80//" }).baseURL, "http://[::1]");
  });
  withEnvironment({ HERM_API_KEY: "h" }, () => assert.equal(new Herm().baseURL, "http://127.0.0.1:4376"));
  for (const baseURL of [
    "herm.example",
    "ftp://herm.example",
    "https://u:p@herm.example",
    "https://herm.example?a",
  ]) {
    assert.throws(() => new Herm({ apiKey: KEY, baseURL }), /baseURL/);
  }
});

test("the key appears in no error, log or printed client", async () => {
  const output: string[] = [];
  const logger = { debug: (text: string) => output.push(text), warn: (text: string) => output.push(text) };
  const replies = [
    new TypeError("fetch failed"),
    errorResponse(500, "server_error"),
    errorResponse(400, KEY),
  ];
  const { client } = fakeClient(replies, { logger });
  const thrown = await client.deployments.get("dep_1").catch((error: unknown) => error);
  assert.ok(thrown instanceof Herm.BadRequestError);
  output.push(
    inspect(thrown, { depth: 9 }),
    JSON.stringify(thrown),
    inspect(client, { depth: 9, showHidden: true }),
  );
  assert.equal(output.filter(text => text.includes(KEY)).length, 0);
  assert.equal(output.length, 7, "two retries and two responses were logged");
  assert.throws(
    () => new Herm({ apiKey: "herm_sk_with a blank" }),
    (error: Error) => !error.message.includes("herm_sk_with"),
  );
});

test("a page cannot use a secret key, but can use a token", () => {
  const page = globalThis as { window?: unknown };
  page.window = { document: {} };
  try {
    assert.throws(() => new Herm({ apiKey: KEY }), /tokens\.create/);
    new Herm({ apiKey: "herm_pk_token" });
    new Herm({ apiKey: KEY, dangerouslyAllowBrowser: true });
  } finally {
    delete page.window;
  }
});

test("an id cannot change the path", async () => {
  const { client, requests } = fakeClient([jsonResponse({})]);
  for (const id of ["", ".", ".."])
    assert.throws(() => client.deployments.get(id), /must be a non-empty string/);
  await client.threads.get("dep/1", "a?b#c");
  assert.equal(requests[0]?.url.href, "http://herm.test/v1/deployments/dep%2F1/threads/a%3Fb%23c");
});

test("headers of a request override headers of the client", async () => {
  const { client, requests } = fakeClient([jsonResponse({})], {
    defaultHeaders: { "x-a": "client", "x-b": "client" },
  });
  await client.threads.create("dep_1", {}, { headers: { "x-b": "request" }, idempotencyKey: "mine" });
  const { headers } = requests[0]!;
  assert.deepEqual(
    ["x-a", "x-b", "idempotency-key", "content-type", "user-agent"].map(name => headers.get(name)),
    ["client", "request", "mine", "application/json", `herm-typescript/${VERSION}`],
  );
});

test("a response that is not from the API throws a clear error", async () => {
  const { client } = fakeClient([new Response("<html>", { headers: { "content-type": "text/html" } })]);
  await assert.rejects(client.deployments.get("dep_1"), /not JSON \(text\/html\)\. Check that baseURL/);
  const proxy = fakeClient([new Response("<html>".repeat(100), { status: 403 })]);
  await assert.rejects(proxy.client.deployments.get("dep_1"), (thrown: unknown) => {
    assert.ok(thrown instanceof Herm.PermissionDeniedError);
    assert.ok(thrown.code === undefined && thrown.message.length < 250);
    return true;
  });
});

test("an error message lists each field error", async () => {
  const details = [{ path: "skills[1].url", message: "not a URL" }];
  const { client } = fakeClient([
    jsonResponse({ error: "validation_error", message: "No.", details, request_id: "req_9" }, 400),
  ]);
  await assert.rejects(client.deployments.get("dep_1"), (thrown: unknown) => {
    assert.ok(thrown instanceof Herm.APIError);
    assert.deepEqual(
      [thrown.message, thrown.details, thrown.requestId],
      ["400 No.\n  skills[1].url: not a URL", details, "req_9"],
    );
    return true;
  });
});

test("the version equals the version of the package", () => {
  assert.equal(VERSION, (JSON.parse(readFileSync("package.json", "utf8")) as { version: string }).version);
});
