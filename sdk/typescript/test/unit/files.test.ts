import assert from "node:assert/strict";
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after } from "node:test";
import Herm, { type SkillParams } from "herm";
import { fakeClient, jsonResponse, errorResponse } from "../support/fake-fetch.js";

const folder = mkdtempSync(join(tmpdir(), "herm-sdk-"));
after(() => rmSync(folder, { recursive: true }));
const SKILL = "---\nname: refunds\ndescription: How refunds work\n---\n";
writeFileSync(join(folder, "SKILL.md"), SKILL);
mkdirSync(join(folder, "directory"));
writeFileSync(join(folder, "large.md"), Buffer.alloc(1024 * 1024 + 1));

/** Adds a skill through a fake server. Returns the body of the request that the client sent. */
async function sentSkill(skill: SkillParams): Promise<unknown> {
  const { client, requests } = fakeClient([jsonResponse({})]);
  await client.skills.add("dep_1", skill);
  return JSON.parse(String(requests[0]?.body));
}

test("the text of a local file skill is sent", async () => {
  const path = join(folder, "SKILL.md");
  const skill: SkillParams = { source: "file", name: "refunds", path };
  assert.deepEqual(await sentSkill(skill), { ...skill, content: SKILL });
  const { client, requests } = fakeClient([jsonResponse({})]);
  const inline: SkillParams = { source: "inline", name: "tone", content: "Be kind." };
  await client.deployments.create({
    customer_id: "a",
    name: "b",
    system_prompt: "c",
    skills: [skill, inline],
  });
  await client.deployments.update("dep_1", { skills: [skill] });
  await client.skills.update("dep_1", "skl_1", skill);
  const bodies = requests.map(request => JSON.parse(String(request.body)) as Record<string, unknown>);
  assert.deepEqual(bodies[0]?.skills, [{ ...skill, content: SKILL }, inline]);
  assert.deepEqual(bodies[1]?.skills, [{ ...skill, content: SKILL }]);
  assert.deepEqual(bodies[2], { ...skill, content: SKILL });
});

test("a file skill without a local file, or with its own text, is sent unchanged", async () => {
  const missing: SkillParams = { source: "file", name: "x", path: "skills/nowhere/SKILL.md" };
  assert.deepEqual(await sentSkill(missing), missing);
  const directory: SkillParams = { source: "file", name: "x", path: join(folder, "directory") };
  assert.deepEqual(await sentSkill(directory), directory);
  const beneath: SkillParams = { source: "file", name: "x", path: join(folder, "SKILL.md", "y") };
  assert.deepEqual(await sentSkill(beneath), beneath);
  const withText: SkillParams = {
    source: "file",
    name: "x",
    path: join(folder, "SKILL.md"),
    content: "mine",
  };
  assert.deepEqual(await sentSkill(withText), withText);
});

test("a file skill that is too large throws an error", async () => {
  const skill: SkillParams = { source: "file", name: "x", path: join(folder, "large.md") };
  await assert.rejects(sentSkill(skill), /larger than 1048576 bytes/);
});

test("a file can be read once, as text, bytes or a stream", async () => {
  const reply = () =>
    new Response("Grüße", { headers: { "content-type": "text/plain", "content-length": "7", etag: '"v1"' } });
  const { client, requests } = fakeClient([reply]);
  const text = await client.files.read("dep_1", "a b.txt");
  assert.deepEqual([text.size, text.contentType, text.etag], [7, "text/plain", '"v1"']);
  assert.equal(await text.text(), "Grüße");
  await assert.rejects(text.text(), /already read/);
  const bytes = await client.files.read(
    "dep_1",
    { path: "a.txt", thread_id: "thr_1" },
    { range: { start: 2 } },
  );
  assert.equal((await bytes.bytes()).length, 7);
  const streamed = (await client.files.read("dep_1", "a.txt", { range: { start: 0, end: 9 } })).stream();
  assert.equal(await new Response(streamed).text(), "Grüße");
  assert.deepEqual(
    requests.map(request => [request.url.search, request.headers.get("range")]),
    [
      ["?path=a+b.txt", null],
      ["?path=a.txt&thread_id=thr_1", "bytes=2-"],
      ["?path=a.txt", "bytes=0-9"],
    ],
  );
});

test("a file that breaks off throws a connection error", async () => {
  const body = () =>
    new ReadableStream({ pull: controller => controller.error(new TypeError("terminated")) });
  const { client } = fakeClient([() => new Response(body())]);
  const file = await client.files.read("dep_1", "a.txt");
  await assert.rejects(file.bytes(), Herm.APIConnectionError);
});

test("a file is written unchanged, with a precondition if requested", async () => {
  const { client, requests } = fakeClient([jsonResponse({ path: "a.txt", size: 1 })]);
  await client.files.write("dep_1", "a.txt", "x", { ifMatch: '"v1"' });
  const { headers, body, method, url } = requests[0]!;
  assert.deepEqual([method, url.search, body, headers.get("if-match")], ["PUT", "?path=a.txt", "x", '"v1"']);
  assert.equal(headers.get("idempotency-key"), null);
});

test("a write with a precondition is not retried once it may have succeeded", async () => {
  const write = async (first: Response | Error) => {
    const { client, requests } = fakeClient([first, jsonResponse({})]);
    await client.files.write("dep_1", "a.txt", "x", { ifNoneMatch: "*" }).catch(() => undefined);
    assert.equal(requests[0]?.headers.get("if-none-match"), "*");
    return requests.length;
  };
  assert.equal(await write(new TypeError("fetch failed")), 1);
  assert.equal(await write(errorResponse(503, "unavailable")), 2);
});
