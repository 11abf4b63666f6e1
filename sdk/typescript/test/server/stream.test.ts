import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import Herm, { type HermEvent, type StoredEvent } from "herm";
import { CuttingProxy } from "../support/cutting-proxy.js";
import { seeded } from "../support/runtime.js";
import { TestServer, TOUR } from "../support/server.js";

/** Rounds of each test that is left to chance. */
const ROUNDS = Number(process.env["HERM_TEST_ROUNDS"] ?? 3);
const FROM_THE_START = { after: "evt_0" };

let server: TestServer;
before(async () => (server = await TestServer.start()));
after(() => server.remove());

/** What the log has, without what a stream does not say. */
async function listed(client: Herm, deploymentId: string): Promise<HermEvent[]> {
  const events: HermEvent[] = [];
  for await (const { created_at: _, ...event } of client.deployments.events.list(deploymentId, {
    limit: 100,
  })) {
    events.push(event as Omit<StoredEvent, "created_at"> as HermEvent);
  }
  return events;
}

/** Reads a stream until so many runs are completed. */
async function read(
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
  throw new Error("the stream ended before its runs");
}

test("a stream from the start is the log", async () => {
  const client = server.client();
  const { deployment_id: id } = await client.deployments.create(TOUR);
  const events = read(client.deployments.events.stream(id, FROM_THE_START), 2);
  await client.deployments.messages.send(id, { content: "one" });
  await client.deployments.messages.send(id, { content: "two", thread_id: "new" });
  const got = await events;
  assert.deepEqual(got, await listed(client, id));
  const spoken = got.filter(event => event.type === "token").map(event => event.delta);
  const said = got.filter(event => event.type === "message").filter(event => event.role === "agent");
  assert.equal([...spoken].sort().join(""), spoken.sort().join(""));
  assert.equal(spoken.join("").length, said.map(event => event.content).join("").length);
});

test("a stream that is connected misses nothing of what is caused afterwards", async () => {
  const client = server.client();
  const { deployment_id: id } = await client.deployments.create(TOUR);
  const stream = await client.deployments.events.stream(id);
  assert.equal(stream.lastEventId, "evt_1");
  const { run_id } = await client.deployments.messages.send(id, { content: "go" });
  const got = await read(stream, 1);
  assert.deepEqual(got, (await listed(client, id)).slice(1));
  const only = await read(
    client.deployments.events.stream(id, { ...FROM_THE_START, run_id, types: ["run_status"] }),
    1,
  );
  assert.deepEqual(
    only.map(event => event.type === "run_status" && event.status),
    ["queued", "running", "completed"],
  );
});

test("a deleted deployment's stream ends with its deletion", async () => {
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
  await assert.rejects(read(client.deployments.events.stream(id), 1), Herm.NotFoundError);
});

for (let seed = 1; seed <= ROUNDS; seed++) {
  test(`through cut connections every event comes once, in order (seed ${seed})`, async () => {
    const proxy = await CuttingProxy.start(server.url, seeded(seed));
    try {
      const client = server.client();
      const { deployment_id: id } = await client.deployments.create(TOUR);
      const cut = server.client({ baseURL: proxy.url, maxRetries: 1000 });
      const events = read(cut.deployments.events.stream(id, FROM_THE_START), 3);
      for (const content of ["one", "two", "three"]) {
        await client.deployments.messages.send(id, { content, thread_id: "new" });
      }
      assert.deepEqual(await events, await listed(client, id));
      assert.ok(proxy.cuts > 2, `${proxy.cuts} connections were cut`);
    } finally {
      proxy.stop();
    }
  });
}

test("a stream outlives a server that is killed and comes back, again and again", async () => {
  const mortal = await TestServer.startMortal();
  try {
    const client = mortal.client({ maxRetries: 1000 });
    const { deployment_id: id } = await client.deployments.create(TOUR);
    let restarts = 0;
    let restarting: Promise<void> = Promise.resolve();
    const events = read(client.deployments.events.stream(id, FROM_THE_START), 2, count => {
      // In the middle of a run each time: after its first, its tenth, its twentieth event.
      if (![2, 11, 21].includes(count)) return;
      restarts += 1;
      restarting = restarting.then(() => mortal.kill()).then(() => mortal.run());
    });
    await client.deployments.messages.send(id, { content: "one" });
    await client.deployments.messages.send(id, { content: "two", thread_id: "new" });
    const got = await events;
    await restarting;
    assert.equal(restarts, 3);
    assert.deepEqual(got, (await listed(client, id)).slice(0, got.length));
    assert.deepEqual(
      got.map(event => event.id),
      got.map((_, at) => `evt_${at + 1}`),
    );
  } finally {
    await mortal.remove();
  }
});
