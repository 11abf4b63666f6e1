import assert from "node:assert/strict";
import test from "node:test";
import Herm from "herm";
import { fakeClient, jsonResponse } from "../support/fake-fetch.js";

const deployment = (status: string) =>
  jsonResponse({ deployment_id: "dep_1", status, error: { code: "x", message: "No disk." } });

test("waitUntilReady polls with growing waits until the deployment is ready", async () => {
  const polls = Array.from({ length: 5 }, () => deployment("provisioning"));
  const { client, runtime } = fakeClient([...polls, deployment("ready")]);
  assert.equal((await client.deployments.waitUntilReady("dep_1")).status, "ready");
  assert.deepEqual(runtime.sleeps, [187.5, 375, 750, 1500, 1500]);
});

test("waitUntilReady throws the reason if the provisioning fails", async () => {
  const { client } = fakeClient([deployment("provisioning"), deployment("error")]);
  await assert.rejects(client.deployments.waitUntilReady("dep_1"), (thrown: unknown) => {
    assert.ok(thrown instanceof Herm.DeploymentFailedError);
    assert.match(thrown.message, /provisioning of deployment dep_1 failed: No disk\./);
    return true;
  });
});

test("waitUntilReady ends with its timeout or its signal", async () => {
  const { client, runtime } = fakeClient([deployment("provisioning")]);
  const startedAt = runtime.now();
  await assert.rejects(client.deployments.waitUntilReady("dep_1", { timeout: 5_000 }), Herm.WaitTimeoutError);
  assert.equal(runtime.now() - startedAt, 5_000);
  const ending = new AbortController();
  const replies = [() => (ending.abort(), deployment("provisioning"))];
  const aborted = fakeClient(replies).client.deployments.waitUntilReady("dep_1", { signal: ending.signal });
  await assert.rejects(aborted, Herm.APIUserAbortError);
});
