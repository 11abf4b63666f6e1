import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import Herm from "herm";
import { TestServer, TOUR } from "../support/server.js";

let server: TestServer;
before(async () => (server = await TestServer.start()));
after(() => server?.remove());

test("a snapshot of a deleted deployment can be restored into another one", async () => {
  const client = server.client();
  const { deployment_id } = await client.deployments.create(TOUR);
  await client.files.write(deployment_id, "notes/a.txt", "kept");
  const { snapshot_id } = await client.deployments.delete(deployment_id, { retain_filesystem: true });
  assert.ok(snapshot_id);
  let snapshot = await client.snapshots.get(snapshot_id);
  while (snapshot.status === "creating") snapshot = await client.snapshots.get(snapshot_id);
  assert.deepEqual([snapshot.status, snapshot.contents?.content_size], ["ready", 4]);
  const content = await client.snapshots.content(snapshot_id);
  assert.equal((await content.bytes()).byteLength, snapshot.contents?.size);
  const restored = await client.deployments.create({ ...TOUR, restore_snapshot: snapshot_id });
  await client.deployments.waitUntilReady(restored.deployment_id);
  assert.equal(await (await client.files.read(restored.deployment_id, "notes/a.txt")).text(), "kept");
  const listed: string[] = [];
  for await (const one of client.snapshots.list({ status: "ready" })) listed.push(one.snapshot_id);
  assert.deepEqual(listed, [snapshot_id]);
  await client.snapshots.delete(snapshot_id);
  await assert.rejects(client.snapshots.get(snapshot_id), Herm.NotFoundError);
});
