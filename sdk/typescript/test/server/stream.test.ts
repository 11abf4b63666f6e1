import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import Herm, { type HermEvent, type StoredEvent } from "herm";
import { CuttingProxy } from "../support/cutting-proxy.js";
import { seededRandom } from "../support/runtime.js";
import { TestServer, TOUR } from "../support/server.js";

/** Number of rounds of each randomized test. */
const ROUNDS = Number(process.env["HERM_TEST_ROUNDS"] ?? 3);
const FROM_THE_START = { after: "evt_0" };

let server: TestServer;
before(async () => (server = await TestServer.start()));
after(() => server.remove());

/** Returns all events of the event log without `created_at`, which streamed events do not have. */
async function listEvents(client: Herm, deploymentId: string): Promise<HermEvent[]> {
  const events: HermEvent[] = [];
  for await (const { created_at: _, ...event } of client.deployments.events.list(deploymentId, {
    limit: 100,
  })) {
    events.push(event as Omit<StoredEvent, "created_at"> as HermEvent);
  }
  return events;
}

/** Reads a stream until `runs` runs are completed. Returns the events. */
async function readEvents(
  events: AsyncIterable<HermEvent>,
  runs: number,
  onEvent?: (count: number) => void,
): Promise<HermEvent[]> {
  const got: HermEvent[] = [];
  for await (const event of events) {
    got.push(event);
    if (event.type === "run_status" && event.status === "completed" && --runs === 0) return got;
    onEvent?.(got.length);
  }
  throw new Error("the stream ended before the expected runs were completed");
}

test("a stream from the start equals the event log", async () => {
  const client = server.client();
  const { deployment_id: id } = await client.deployments.create(TOUR);
  const events = readEvents(client.deployments.events.stream(id, FROM_THE_START), 2);
  await client.deployments.messages.send(id, { content: "one" });
  await client.deployments.messages.send(id, { content: "two", thread_id: "new" });
  const got = await events;
  assert.deepEqual(got, await listEvents(client, id));
  const deltas = got.filter(event => event.type === "token").map(event => event.delta);
  const messages = got.filter(event => event.type === "message").filter(event => event.role === "agent");
  assert.equal([...deltas].sort().join(""), deltas.sort().join(""));
  assert.equal(deltas.join("").length, messages.map(event => event.content).join("").length);
});

test("a connected stream misses no later event", async () => {
  const client = server.client();
  const { deployment_id: id } = await client.deployments.create(TOUR);
  const stream = await client.deployments.events.stream(id);
  assert.equal(stream.lastEventId, "evt_1");
  const { run_id } = await client.deployments.messages.send(id, { content: "go" });
  const got = await readEvents(stream, 1);
  assert.deepEqual(got, (await listEvents(client, id)).slice(1));
  const only = await readEvents(
    client.deployments.events.stream(id, { ...FROM_THE_START, run_id, types: ["run_status"] }),
    1,
  );
  assert.deepEqual(
    only.map(event => event.type === "run_status" && event.status),
    ["queued", "running", "completed"],
  );
});

test("deleting a deployment ends its streams", async () => {
  const client = server.client();
  const { deployment_id: id } = await client.deployments.create(TOUR);
  const stream = await client.deployments.events.stream(id);
  await client.deployments.delete(id);
  const got: HermEvent[] = [];
  for await (const event of stream) got.push(event);
  assert.deepEqual(
    got.map(event => event.type === "deployment_status" && event.status),
    ["deleted"],
  );
  await assert.rejects(readEvents(client.deployments.events.stream(id), 1), Herm.NotFoundError);
});

for (let seed = 1; seed <= ROUNDS; seed++) {
  test(`events are yielded once and in order across cut connections (seed ${seed})`, async () => {
    const proxy = await CuttingProxy.start(server.url, seededRandom(seed));
    try {
      const client = server.client();
      const { deployment_id: id } = await client.deployments.create(TOUR);
      const cut = server.client({ baseURL: proxy.url, maxRetries: 1000 });
      const events = readEvents(cut.deployments.events.stream(id, FROM_THE_START), 3);
      for (const content of ["one", "two", "three"]) {
        await client.deployments.messages.send(id, { content, thread_id: "new" });
      }
      assert.deepEqual(await events, await listEvents(client, id));
      assert.ok(proxy.cuts > 2, `${proxy.cuts} connections were cut`);
    } finally {
      proxy.stop();
    }
  });
}

test("a stream survives repeated kills and restarts of the server", async () => {
  const ownServer = await TestServer.startOnFixedPort();
  try {
    const client = ownServer.client({ maxRetries: 1000 });
    const { deployment_id: id } = await client.deployments.create(TOUR);
    let restarts = 0;
    let restarting: Promise<void> = Promise.resolve();
    const events = readEvents(client.deployments.events.stream(id, FROM_THE_START), 2, count => {
      // Kills and restarts the server in the middle of a run: after the 2nd, 11th and 21st event.
      if (![2, 11, 21].includes(count)) return;
      restarts += 1;
      restarting = restarting.then(() => ownServer.kill()).then(() => ownServer.run());
    });
    await client.deployments.messages.send(id, { content: "one" });
    await client.deployments.messages.send(id, { content: "two", thread_id: "new" });
    const got = await events;
    await restarting;
    assert.equal(restarts, 3);
    assert.deepEqual(got, (await listEvents(client, id)).slice(0, got.length));
    assert.deepEqual(
      got.map(event => event.id),
      got.map((_, at) => `evt_${at + 1}`),
    );
  } finally {
    await ownServer.remove();
  }
});
