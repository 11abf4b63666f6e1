import assert from "node:assert/strict";
import test from "node:test";
import Herm, { type HermEvent } from "herm";
import { fakeClient, type Reply, refusal, streamed } from "../support/fake-fetch.js";

const token = (n: number, delta = String(n)) =>
  `event: token\nid: evt_${n}\ndata: ${JSON.stringify({ delta })}\n\n`;
const opening = (n: number) => `: herm\nid: evt_${n}\nretry: 2000\n\n`;
const DELETED = 'event: deployment_status\nid: evt_99\ndata: {"status":"deleted"}\n\n';

async function all(events: AsyncIterable<HermEvent>): Promise<string[]> {
  const ids: string[] = [];
  for await (const event of events) ids.push(event.id);
  return ids;
}

test("events come once, in order, across connections that end, fail and repeat themselves", async () => {
  const { client, seen } = fakeClient([
    streamed([opening(0), token(1), token(2), "event: token\nid: evt_3\nda"]),
    streamed([opening(2), token(3), token(4)], "fail"),
    // A server that sends again what was given already.
    streamed([opening(0), token(1), token(4), token(5), DELETED], "open"),
  ]);
  const ids = await all(
    client.deployments.events.stream("dep_1", { after: "evt_0", types: ["token", "message"] }),
  );
  assert.deepEqual(ids, ["evt_1", "evt_2", "evt_3", "evt_4", "evt_5", "evt_99"]);
  assert.deepEqual(
    seen.map(one => one.url.search),
    [
      "?types=token%2Cmessage&after=evt_0",
      "?types=token%2Cmessage&after=evt_2",
      "?types=token%2Cmessage&after=evt_4",
    ],
  );
});

test("an event has its type, its id and the fields of its data", async () => {
  const { client } = fakeClient([streamed([opening(6), token(7, "hi"), DELETED], "open")]);
  const stream = await client.deployments.events.stream("dep_1");
  for await (const event of stream) {
    assert.deepEqual(event, { type: "token", id: "evt_7", delta: "hi" });
    break;
  }
  assert.equal(stream.lastEventId, "evt_7");
});

test("a stream that broke before its first event resumes where it began", async () => {
  const { client, seen } = fakeClient([
    streamed([opening(41)], "fail"),
    streamed([opening(41), DELETED], "open"),
  ]);
  await all(client.deployments.events.stream("dep_1"));
  assert.deepEqual(
    seen.map(one => one.url.searchParams.get("after")),
    [null, "evt_41"],
  );
});

test("a heartbeat moves the place to resume at", async () => {
  const beat = ": still here\nid: evt_60\n\n";
  const { client, seen } = fakeClient([
    streamed([opening(5), beat]),
    streamed([opening(60), DELETED], "open"),
  ]);
  await all(client.deployments.events.stream("dep_1", { types: ["deployment_status"] }));
  assert.equal(seen[1]?.url.searchParams.get("after"), "evt_60");
});

test("a gap is told and may lead back", async () => {
  const gap = 'event: gap\nid: evt_3\ndata: {"requested":"evt_9","earliest":"evt_1","latest":"evt_3"}\n\n';
  const { client } = fakeClient([streamed([": herm\nretry: 1\n\n", gap, token(4), DELETED], "open")]);
  assert.deepEqual(await all(client.deployments.events.stream("dep_1", { after: "evt_9" })), [
    "evt_3",
    "evt_4",
    "evt_99",
  ]);
});

test("waits between connections follow the server's hint, double while nothing comes, and begin anew", async () => {
  const { client, runtime } = fakeClient([
    streamed([opening(0), token(1)]),
    new TypeError("fetch failed"),
    streamed([opening(1)]),
    refusal(503, "unavailable", { "retry-after": "20" }),
    streamed([opening(1), token(2)]),
    streamed([opening(2), DELETED], "open"),
  ]);
  await all(client.deployments.events.stream("dep_1"));
  assert.deepEqual(runtime.sleeps, [1_500, 3_000, 6_000, 20_000, 1_500]);
});

test("a silent connection is given up", async () => {
  const { client, seen, runtime } = fakeClient([
    streamed([opening(0), token(1)], "open"),
    streamed([opening(1), token(2), DELETED], "open"),
  ]);
  const ids: string[] = [];
  for await (const event of client.deployments.events.stream("dep_1")) {
    ids.push(event.id);
    if (event.id === "evt_1") void runtime.fire(45_000);
  }
  assert.deepEqual(ids, ["evt_1", "evt_2", "evt_99"]);
  assert.equal(seen.length, 2);
  assert.ok(seen[0]?.signal.aborted, "the silent request was ended");
});

for (const [status, error, Kind] of [
  [400, "validation_error", Herm.BadRequestError],
  [401, "unauthorized", Herm.AuthenticationError],
  [403, "forbidden", Herm.PermissionDeniedError],
  [404, "not_found", Herm.NotFoundError],
] as const) {
  test(`${status} ends a stream, at its beginning and in its middle`, async () => {
    const first = fakeClient([refusal(status, error)]).client;
    await assert.rejects(all(first.deployments.events.stream("dep_1")), Kind);
    const { client } = fakeClient([streamed([opening(0), token(1)]), refusal(status, error)]);
    const ids: string[] = [];
    const reading = async () => {
      for await (const event of client.deployments.events.stream("dep_1")) ids.push(event.id);
    };
    await assert.rejects(reading, Kind);
    assert.deepEqual(ids, ["evt_1"]);
  });
}

test("a server that is not there is given up at the beginning and waited for later", async () => {
  const away = new TypeError("fetch failed");
  const first = fakeClient([away], { maxRetries: 2 });
  await assert.rejects(all(first.client.deployments.events.stream("dep_1")), Herm.APIConnectionError);
  assert.equal(first.seen.length, 3);
  const replies: Reply[] = [streamed([opening(0), token(1)]), ...Array<Reply>(50).fill(away)];
  const later = fakeClient([...replies, streamed([opening(1), DELETED], "open")], { maxRetries: 0 });
  assert.deepEqual(await all(later.client.deployments.events.stream("dep_1")), ["evt_1", "evt_99"]);
});

test("break, a signal and close end a stream without an error, and its request with it", async () => {
  const reply = () => streamed([opening(0), token(1), token(2)], "open");
  const broken = fakeClient([reply]);
  for await (const _ of broken.client.deployments.events.stream("dep_1")) break;
  assert.ok(broken.seen[0]?.signal.aborted);

  const aborted = fakeClient([reply]);
  const ending = new AbortController();
  let count = 0;
  for await (const _ of aborted.client.deployments.events.stream("dep_1", {}, { signal: ending.signal })) {
    if (++count === 2) queueMicrotask(() => ending.abort());
  }
  assert.deepEqual([count, aborted.seen[0]?.signal.aborted], [2, true]);
  for await (const _ of aborted.client.deployments.events.stream("dep_1", {}, { signal: ending.signal })) {
    assert.fail("an ended signal lets nothing through");
  }

  const closed = fakeClient([reply]);
  const stream = await closed.client.deployments.events.stream("dep_1");
  for await (const event of stream) if (event.id === "evt_2") queueMicrotask(() => stream.close());
  assert.ok(closed.seen[0]?.signal.aborted);
});

test("awaited under an ended signal, a stream says that it was aborted", async () => {
  const ending = new AbortController();
  ending.abort();
  const { client } = fakeClient([streamed([opening(0)], "open")]);
  await assert.rejects(
    client.deployments.events.stream("dep_1", {}, { signal: ending.signal }),
    Herm.APIUserAbortError,
  );
});

test("a stream that cannot connect says so to its reader, also to a late one", async () => {
  const { client } = fakeClient([refusal(401, "unauthorized")]);
  const stream = client.deployments.events.stream("dep_1");
  // Long enough for Node.js to complain of an error that nobody handles.
  await new Promise(resolve => setImmediate(resolve));
  await assert.rejects(all(stream), Herm.AuthenticationError);
});

test("a stream has one reader", async () => {
  const { client } = fakeClient([streamed([opening(0), token(1), DELETED], "open")]);
  const stream = await client.deployments.events.stream("dep_1");
  await all(stream);
  await assert.rejects(all(stream), /already/);
});

test("hostile answers end in an error, not in a loop", async () => {
  const page = new Response("<html>", { headers: { "content-type": "text/html" } });
  const wrong = fakeClient([page], { maxRetries: 1 }).client;
  await assert.rejects(all(wrong.deployments.events.stream("dep_1")), /came as text\/html/);
  for (const data of ["{", "[1]", "null", '"text"']) {
    const { client } = fakeClient([streamed([opening(0), `id: evt_1\ndata: ${data}\n\n`], "open")]);
    await assert.rejects(all(client.deployments.events.stream("dep_1")), /data of event evt_1 is not/);
  }
  const flood = new Uint8Array(1024 * 1024).fill(0x61);
  const endless = () => streamed([opening(0), ...Array<Uint8Array>(17).fill(flood)], "open");
  await assert.rejects(all(fakeClient([endless]).client.deployments.events.stream("dep_1")), /longer than/);
});

test("fields of the data do not replace an event's type and id", async () => {
  const data = 'event: token\nid: evt_1\ndata: {"type":"x","id":"y","__proto__":{"z":1},"delta":"d"}\n\n';
  const { client } = fakeClient([streamed([opening(0), data, DELETED], "open")]);
  for await (const event of client.deployments.events.stream("dep_1")) {
    assert.deepEqual([event.type, event.id, (event as { z?: number }).z], ["token", "evt_1", undefined]);
    break;
  }
});

test("an event narrows by its type", () => {
  const tell = (event: HermEvent): string => {
    if (event.type === "tool_call") return event.tool + JSON.stringify(event.arguments);
    if (event.type === "run_status") return event.status + (event.error?.code ?? "");
    return event.type === "token" ? event.delta : event.id;
  };
  const call: HermEvent = {
    type: "tool_call",
    id: "evt_1",
    run_id: "run_1",
    thread_id: "thr_1",
    tool_call_id: "c",
    tool: "shell",
    arguments: {},
  };
  assert.equal(tell(call), "shell{}");
});
