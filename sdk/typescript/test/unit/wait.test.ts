import assert from "node:assert/strict";
import test from "node:test";
import Herm from "herm";
import { fakeClient, json } from "../support/fake-fetch.js";

const deployment = (status: string) =>
  json({ deployment_id: "dep_1", status, error: { code: "x", message: "No disk." } });

test("a deployment is looked at, less and less often, until it is ready", async () => {
  const looks = Array.from({ length: 5 }, () => deployment("provisioning"));
  const { client, runtime } = fakeClient([...looks, deployment("ready")]);
  assert.equal((await client.deployments.waitUntilReady("dep_1")).status, "ready");
  assert.deepEqual(runtime.sleeps, [187.5, 375, 750, 1500, 1500]);
});

test("a deployment that fails says why", async () => {
  const { client } = fakeClient([deployment("provisioning"), deployment("error")]);
  await assert.rejects(client.deployments.waitUntilReady("dep_1"), (thrown: unknown) => {
    assert.ok(thrown instanceof Herm.DeploymentFailedError);
    assert.match(thrown.message, /dep_1 is not ready: No disk\./);
    return true;
  });
});

test("waiting has an end", async () => {
  const { client, runtime } = fakeClient([deployment("provisioning")]);
  const begun = runtime.now();
  await assert.rejects(client.deployments.waitUntilReady("dep_1", { timeout: 5_000 }), Herm.WaitTimeoutError);
  assert.equal(runtime.now() - begun, 5_000);
  const ending = new AbortController();
  const replies = [() => (ending.abort(), deployment("provisioning"))];
  const aborted = fakeClient(replies).client.deployments.waitUntilReady("dep_1", { signal: ending.signal });
  await assert.rejects(aborted, Herm.APIUserAbortError);
});
