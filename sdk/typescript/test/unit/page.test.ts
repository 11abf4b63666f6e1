import assert from "node:assert/strict";
import test from "node:test";
import { fakeClient, jsonResponse, errorResponse } from "../support/fake-fetch.js";

const pages = () => [
  jsonResponse({ data: [{ name: "a" }, { name: "b" }], next_cursor: "two" }),
  jsonResponse({ data: [], next_cursor: "three" }),
  jsonResponse({ data: [{ name: "c" }], next_cursor: null }),
];

test("iterating a list yields all items and requests pages on demand", async () => {
  const { client, requests } = fakeClient(pages());
  const names: string[] = [];
  for await (const { name } of client.deployments.list({ customer_id: "acme", limit: 2 })) {
    if (name === "b") assert.equal(requests.length, 1);
    names.push(name);
  }
  assert.deepEqual(names, ["a", "b", "c"]);
  assert.deepEqual(
    requests.map(request => request.url.search),
    [
      "?customer_id=acme&limit=2",
      "?customer_id=acme&limit=2&cursor=two",
      "?customer_id=acme&limit=2&cursor=three",
    ],
  );
});

test("a list can be read page by page", async () => {
  const { client } = fakeClient(pages());
  const first = await client.deployments.list();
  assert.deepEqual([first.data.length, first.next_cursor, first.hasNextPage()], [2, "two", true]);
  const last = await (await first.getNextPage()).getNextPage();
  assert.deepEqual([last.data.length, last.next_cursor, last.hasNextPage()], [1, null, false]);
  await assert.rejects(last.getNextPage(), /last page/);
});

test("a repeated cursor throws an error", async () => {
  const { client } = fakeClient([jsonResponse({ data: [], next_cursor: "same" })]);
  const page = await client.deployments.list();
  await assert.rejects(page.getNextPage(), /same page cursor twice/);
});

test("a rejected list request throws when awaited and when iterated", async () => {
  const { client } = fakeClient([errorResponse(403, "forbidden")]);
  await assert.rejects(client.deployments.list(), /403/);
  await assert.rejects(async () => {
    for await (const _ of client.deployments.list()) assert.fail();
  }, /403/);
});

test("listed events have the shape of streamed events", async () => {
  const item = { id: "evt_1", event: "token", data: { delta: "x" }, created_at: "2026-01-01T00:00:00Z" };
  const { client } = fakeClient([jsonResponse({ data: [item], next_cursor: null })]);
  const page = await client.deployments.events.list("dep_1");
  assert.deepEqual(page.data, [
    { type: "token", id: "evt_1", delta: "x", created_at: "2026-01-01T00:00:00Z" },
  ]);
});
