import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import Herm, { type HermEvent, type Runtime } from "herm";
import { CuttingProxy } from "../support/cutting-proxy.js";
import { ModelServer } from "../support/model-server.js";
import { hurried, seededRandom } from "../support/runtime.js";
import { TestServer, TOUR } from "../support/server.js";

const CHAT = { ...TOUR, model: "openai/scripted", sandbox: { enabled: false } };

let model: ModelServer;
let server: TestServer;
before(async () => {
  model = await ModelServer.start();
  server = await TestServer.start(model.environment);
});
after(async () => {
  await server?.remove();
  model?.stop();
});

test("sendAndWait sends a message and waits for its run", async () => {
  const client = server.client();
  const { deployment_id: id } = await client.deployments.create(CHAT);
  model.reply = "Grüße aus dem Modell 👋";
  const events: HermEvent[] = [];
  const run = await client.deployments.messages.sendAndWait(
    id,
    { content: "hi" },
    { onEvent: e => void events.push(e) },
  );
  assert.deepEqual([run.status, run.text], ["completed", "Grüße aus dem Modell 👋"]);
  const streamedText = events.map(event => (event.type === "token" ? event.delta : "")).join("");
  assert.equal(streamedText, run.text);
  assert.deepEqual(
    events.filter(event => event.type === "run_status").map(event => event.status),
    ["queued", "running", "completed"],
  );
});

test("the text is the agent's last message, independently of other threads", async () => {
  const client = server.client();
  const { deployment_id: id } = await client.deployments.create(TOUR);
  const [first, second] = await Promise.all([
    client.deployments.messages.sendAndWait(id, { content: "one", thread_id: "new" }),
    client.deployments.messages.sendAndWait(id, { content: "two", thread_id: "new" }),
  ]);
  assert.notEqual(first.run_id, second.run_id);
  for (const run of [first, second]) assert.match(run.text, /Done\. The command saw/);
});

test("sendAndWait works across cut connections", async () => {
  const proxy = await CuttingProxy.start(server.url, seededRandom(7));
  try {
    const { deployment_id: id } = await server.client().deployments.create(TOUR);
    const client = server.client({ baseURL: proxy.url, maxRetries: 1000 });
    const run = await client.deployments.messages.sendAndWait(id, { content: "go" });
    assert.match(run.text, /Done\. The command saw/);
    assert.ok(proxy.cuts > 0);
    const runs = await server.client().runs.list(id);
    assert.deepEqual(
      runs.data.map(run => run.run_id),
      [run.run_id],
      "the message was accepted once",
    );
  } finally {
    proxy.stop();
  }
});

test("sendAndWait survives a kill and restart of the server", async () => {
  const ownServer = await TestServer.startOnFixedPort();
  try {
    const client = ownServer.client({ maxRetries: 1000 });
    const { deployment_id: id } = await client.deployments.create(TOUR);
    let restarting: Promise<void> | undefined;
    const onEvent = (event: HermEvent) => {
      if (event.type === "tool_call") restarting ??= ownServer.kill().then(() => ownServer.run());
    };
    const run = await client.deployments.messages.sendAndWait(id, { content: "go" }, { onEvent });
    await restarting;
    assert.match(run.text, /Done\. The command saw/);
  } finally {
    await ownServer.remove();
  }
});

test("a failed run throws its error", async () => {
  const client = server.client();
  const { deployment_id: id } = await client.deployments.create({
    ...CHAT,
    model: "anthropic/claude-sonnet-4.5",
  });
  await assert.rejects(client.deployments.messages.sendAndWait(id, { content: "hi" }), (thrown: unknown) => {
    assert.ok(thrown instanceof Herm.RunFailedError);
    assert.deepEqual([thrown.code, thrown.run.status], ["provider_not_configured", "error"]);
    return true;
  });
});

test("aborting the wait or cancelling the run throws an error", async () => {
  const client = server.client();
  const { deployment_id: id } = await client.deployments.create(CHAT);
  model.reply = undefined;
  const wait = (options: { signal?: AbortSignal; onEvent?: (event: HermEvent) => void }) =>
    client.deployments.messages.sendAndWait(id, { content: "hi", thread_id: "new" }, options);
  const ending = new AbortController();
  const aborted = wait({
    signal: ending.signal,
    onEvent: event => void (event.type === "token" && ending.abort()),
  });
  await assert.rejects(aborted, Herm.APIUserAbortError);

  const cancelled = wait({
    onEvent: event => {
      if (event.type === "token") void client.runs.cancel(id, event.run_id);
    },
  });
  await assert.rejects(cancelled, Herm.RunCancelledError);

  for await (const run of client.runs.list(id, { status: "running" }))
    await client.runs.cancel(id, run.run_id);
});

test("a wait that times out throws an error, and the run continues", async () => {
  // The test itself fires the timeout while the run is active.
  let fireTimeout = () => {};
  const after: Runtime["after"] = (ms, act) => {
    if (ms !== 777) return hurried.after(ms, act);
    fireTimeout = act;
    return () => {};
  };
  const client = server.client({}, { ...hurried, after });
  const { deployment_id: id } = await client.deployments.create(CHAT);
  model.reply = undefined;
  const onEvent = (event: HermEvent) => void (event.type === "token" && fireTimeout());
  const waiting = client.deployments.messages.sendAndWait(id, { content: "hi" }, { timeout: 777, onEvent });
  const error: unknown = await waiting.catch((thrown: unknown) => thrown);
  assert.ok(error instanceof Herm.WaitTimeoutError);
  const run = await client.runs.get(id, error.runId ?? "");
  assert.equal(run.status, "running", "the run continues");
  await client.deployments.delete(id);
});

test("deleting the deployment ends the wait", async () => {
  const client = server.client();
  const { deployment_id: id } = await client.deployments.create(CHAT);
  model.reply = undefined;
  const onEvent = (event: HermEvent) => void (event.type === "token" && client.deployments.delete(id));
  await assert.rejects(
    client.deployments.messages.sendAndWait(id, { content: "hi" }, { onEvent }),
    Herm.NotFoundError,
  );
});

test("waitUntilReady returns the ready deployment", async () => {
  const client = server.client();
  const { deployment_id: id } = await client.deployments.create(CHAT);
  assert.equal((await client.deployments.waitUntilReady(id)).status, "ready");
});
