import assert from "node:assert/strict";
import test from "node:test";
import Herm, { type HermEvent } from "herm";
import { fakeClient, type Reply, errorResponse, streamResponse } from "../support/fake-fetch.js";

const token = (n: number, delta = String(n)) =>
  `event: token\nid: evt_${n}\ndata: ${JSON.stringify({ delta })}\n\n`;
const opening = (n: number) => `: herm\nid: evt_${n}\nretry: 2000\n\n`;
const DELETED = 'event: deployment_status\nid: evt_99\ndata: {"status":"deleted"}\n\n';

/** Reads a stream until it ends. Returns the ids of the events. */
async function readIds(events: AsyncIterable<HermEvent>): Promise<string[]> {
  const ids: string[] = [];
  for await (const event of events) ids.push(event.id);
  return ids;
}

test("events are yielded once and in order across connections that end, fail or repeat events", async () => {
  const { client, requests } = fakeClient([
    streamResponse([opening(0), token(1), token(2), "event: token\nid: evt_3\nda"]),
    streamResponse([opening(2), token(3), token(4)], "fail"),
    // The third connection repeats events that the stream has already yielded.
    streamResponse([opening(0), token(1), token(4), token(5), DELETED], "open"),
  ]);
  const ids = await readIds(
    client.deployments.events.stream("dep_1", { after: "evt_0", types: ["token", "message"] }),
  );
  assert.deepEqual(ids, ["evt_1", "evt_2", "evt_3", "evt_4", "evt_5", "evt_99"]);
  assert.deepEqual(
    requests.map(request => request.url.search),
    [
      "?types=token%2Cmessage&after=evt_0",
      "?types=token%2Cmessage&after=evt_2",
      "?types=token%2Cmessage&after=evt_4",
    ],
  );
});

test("an event has its type, its id and the fields of its data", async () => {
  const { client } = fakeClient([streamResponse([opening(6), token(7, "hi"), DELETED], "open")]);
  const stream = await client.deployments.events.stream("dep_1");
  for await (const event of stream) {
    assert.deepEqual(event, { type: "token", id: "evt_7", delta: "hi" });
    break;
  }
  assert.equal(stream.lastEventId, "evt_7");
});

test("a stream that breaks before its first event resumes at its starting position", async () => {
  const { client, requests } = fakeClient([
    streamResponse([opening(41)], "fail"),
    streamResponse([opening(41), DELETED], "open"),
  ]);
  await readIds(client.deployments.events.stream("dep_1"));
  assert.deepEqual(
    requests.map(request => request.url.searchParams.get("after")),
    [null, "evt_41"],
  );
});

test("a heartbeat advances the resume position", async () => {
  const beat = ": still here\nid: evt_60\n\n";
  const { client, requests } = fakeClient([
    streamResponse([opening(5), beat]),
    streamResponse([opening(60), DELETED], "open"),
  ]);
  await readIds(client.deployments.events.stream("dep_1", { types: ["deployment_status"] }));
  assert.equal(requests[1]?.url.searchParams.get("after"), "evt_60");
});

test("a gap is yielded and can move the position back", async () => {
  const gap = 'event: gap\nid: evt_3\ndata: {"requested":"evt_9","earliest":"evt_1","latest":"evt_3"}\n\n';
  const { client } = fakeClient([streamResponse([": herm\nretry: 1\n\n", gap, token(4), DELETED], "open")]);
  assert.deepEqual(await readIds(client.deployments.events.stream("dep_1", { after: "evt_9" })), [
    "evt_3",
    "evt_4",
    "evt_99",
  ]);
});

test("reconnect waits follow the server's retry value, double while nothing arrives, and reset", async () => {
  const { client, runtime } = fakeClient([
    streamResponse([opening(0), token(1)]),
    new TypeError("fetch failed"),
    streamResponse([opening(1)]),
    errorResponse(503, "unavailable", { "retry-after": "20" }),
    streamResponse([opening(1), token(2)]),
    streamResponse([opening(2), DELETED], "open"),
  ]);
  await readIds(client.deployments.events.stream("dep_1"));
  assert.deepEqual(runtime.sleeps, [1_500, 3_000, 6_000, 20_000, 1_500]);
});

test("a silent connection is replaced", async () => {
  const { client, requests, runtime } = fakeClient([
    streamResponse([opening(0), token(1)], "open"),
    streamResponse([opening(1), token(2), DELETED], "open"),
  ]);
  const ids: string[] = [];
  for await (const event of client.deployments.events.stream("dep_1")) {
    ids.push(event.id);
    if (event.id === "evt_1") void runtime.fire(45_000);
  }
  assert.deepEqual(ids, ["evt_1", "evt_2", "evt_99"]);
  assert.equal(requests.length, 2);
  assert.ok(requests[0]?.signal.aborted, "the silent request was aborted");
});

for (const [status, error, Kind] of [
  [400, "validation_error", Herm.BadRequestError],
  [401, "unauthorized", Herm.AuthenticationError],
  [403, "forbidden", Herm.PermissionDeniedError],
  [404, "not_found", Herm.NotFoundError],
] as const) {
  test(`${status} ends a stream, on the first and on a later connection`, async () => {
    const first = fakeClient([errorResponse(status, error)]).client;
    await assert.rejects(readIds(first.deployments.events.stream("dep_1")), Kind);
    const { client } = fakeClient([streamResponse([opening(0), token(1)]), errorResponse(status, error)]);
    const ids: string[] = [];
    const reading = async () => {
      for await (const event of client.deployments.events.stream("dep_1")) ids.push(event.id);
    };
    await assert.rejects(reading, Kind);
    assert.deepEqual(ids, ["evt_1"]);
  });
}

test("an unreachable server fails the first connection, but later ones are retried indefinitely", async () => {
  const unreachable = new TypeError("fetch failed");
  const first = fakeClient([unreachable], { maxRetries: 2 });
  await assert.rejects(readIds(first.client.deployments.events.stream("dep_1")), Herm.APIConnectionError);
  assert.equal(first.requests.length, 3);
  const replies: Reply[] = [streamResponse([opening(0), token(1)]), ...Array<Reply>(50).fill(unreachable)];
  const later = fakeClient([...replies, streamResponse([opening(1), DELETED], "open")], { maxRetries: 0 });
  assert.deepEqual(await readIds(later.client.deployments.events.stream("dep_1")), ["evt_1", "evt_99"]);
});

test("break, a signal and close end a stream and its request without an error", async () => {
  const reply = () => streamResponse([opening(0), token(1), token(2)], "open");
  const broken = fakeClient([reply]);
  for await (const _ of broken.client.deployments.events.stream("dep_1")) break;
  assert.ok(broken.requests[0]?.signal.aborted);

  const aborted = fakeClient([reply]);
  const ending = new AbortController();
  let count = 0;
  for await (const _ of aborted.client.deployments.events.stream("dep_1", {}, { signal: ending.signal })) {
    if (++count === 2) queueMicrotask(() => ending.abort());
  }
  assert.deepEqual([count, aborted.requests[0]?.signal.aborted], [2, true]);
  for await (const _ of aborted.client.deployments.events.stream("dep_1", {}, { signal: ending.signal })) {
    assert.fail("an aborted signal must yield no event");
  }

  const closed = fakeClient([reply]);
  const stream = await closed.client.deployments.events.stream("dep_1");
  for await (const event of stream) if (event.id === "evt_2") queueMicrotask(() => stream.close());
  assert.ok(closed.requests[0]?.signal.aborted);
});

test("awaiting a stream with an aborted signal throws APIUserAbortError", async () => {
  const ending = new AbortController();
  ending.abort();
  const { client } = fakeClient([streamResponse([opening(0)], "open")]);
  await assert.rejects(
    client.deployments.events.stream("dep_1", {}, { signal: ending.signal }),
    Herm.APIUserAbortError,
  );
});

test("a stream that cannot connect throws when it is iterated, also later", async () => {
  const { client } = fakeClient([errorResponse(401, "unauthorized")]);
  const stream = client.deployments.events.stream("dep_1");
  // Waits until Node.js would have reported an unhandled rejection.
  await new Promise(resolve => setImmediate(resolve));
  await assert.rejects(readIds(stream), Herm.AuthenticationError);
});

test("a stream can be iterated only once", async () => {
  const { client } = fakeClient([streamResponse([opening(0), token(1), DELETED], "open")]);
  const stream = await client.deployments.events.stream("dep_1");
  await readIds(stream);
  await assert.rejects(readIds(stream), /already/);
});

test("invalid responses throw an error instead of reconnecting forever", async () => {
  const page = new Response("<html>", { headers: { "content-type": "text/html" } });
  const wrong = fakeClient([page], { maxRetries: 1 }).client;
  await assert.rejects(
    readIds(wrong.deployments.events.stream("dep_1")),
    /not an event stream \(text\/html\)/,
  );
  for (const data of ["{", "[1]", "null", '"text"']) {
    const { client } = fakeClient([streamResponse([opening(0), `id: evt_1\ndata: ${data}\n\n`], "open")]);
    await assert.rejects(readIds(client.deployments.events.stream("dep_1")), /data of event evt_1 is not/);
  }
  const flood = new Uint8Array(1024 * 1024).fill(0x61);
  const endless = () => streamResponse([opening(0), ...Array<Uint8Array>(17).fill(flood)], "open");
  await assert.rejects(
    readIds(fakeClient([endless]).client.deployments.events.stream("dep_1")),
    /longer than/,
  );
});

test("data fields cannot override the type and id of an event", async () => {
  const data = 'event: token\nid: evt_1\ndata: {"type":"x","id":"y","__proto__":{"z":1},"delta":"d"}\n\n';
  const { client } = fakeClient([streamResponse([opening(0), data, DELETED], "open")]);
  for await (const event of client.deployments.events.stream("dep_1")) {
    assert.deepEqual([event.type, event.id, (event as { z?: number }).z], ["token", "evt_1", undefined]);
    break;
  }
});

test("checking the type of an event narrows its TypeScript type", () => {
  const describe = (event: HermEvent): string => {
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
  assert.equal(describe(call), "shell{}");
});
