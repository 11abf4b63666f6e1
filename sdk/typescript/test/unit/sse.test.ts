import assert from "node:assert/strict";
import test from "node:test";
import { type Frame, SseParser } from "#dist/sse.js";

const bytes = (text: string) => new TextEncoder().encode(text);

function parse(...chunks: Uint8Array[]): Frame[] {
  const parser = new SseParser();
  return chunks.flatMap(chunk => parser.push(chunk));
}

const STREAM =
  '\uFEFF: hello\nretry: 1500\n\nevent: token\nid: evt_1\ndata: {"delta":"Grüße 👋 \uFEFF"}\n\n' +
  ": still here\nid: evt_2\n\ndata:first\ndata: second\ndata\nid: evt_3\n\nodd: field\nretry: 12x\nid: a\0b\n\n" +
  "event: token\ndata: never ended";

const FRAMES: Frame[] = [
  { retry: 1500 },
  { event: "token", id: "evt_1", data: '{"delta":"Grüße 👋 \uFEFF"}' },
  { id: "evt_2" },
  { id: "evt_3", data: "first\nsecond\n" },
];

for (const [name, end] of [
  ["LF", "\n"],
  ["CRLF", "\r\n"],
  ["CR", "\r"],
] as const) {
  test(`a stream with ${name} can be split at any byte`, () => {
    const whole = bytes(STREAM.replaceAll("\n", end));
    assert.deepEqual(parse(whole), FRAMES);
    for (let at = 0; at <= whole.length; at++) {
      assert.deepEqual(parse(whole.subarray(0, at), whole.subarray(at)), FRAMES, `split at ${at}`);
    }
    assert.deepEqual(parse(...Array.from(whole, byte => Uint8Array.of(byte))), FRAMES, "byte by byte");
  });
}

test("line endings can be mixed, and an LF belongs to the CR before it", () => {
  assert.deepEqual(parse(bytes("data: a\r\n\rdata: b\n\r\ndata: c\r\r")), [
    { data: "a" },
    { data: "b" },
    { data: "c" },
  ]);
});

test("invalid UTF-8 does not stop the stream", () => {
  assert.deepEqual(parse(Uint8Array.of(...bytes("data: "), 0xff, 0x0a, 0x0a)), [{ data: "\uFFFD" }]);
});

test("the memory of a chunk can be reused", () => {
  const parser = new SseParser();
  const chunk = bytes("data: kept");
  parser.push(chunk);
  chunk.fill(0x20);
  assert.deepEqual(parser.push(bytes("\n\n")), [{ data: "kept" }]);
});

test("lines and events have a size limit", () => {
  const parser = new SseParser(100);
  assert.throws(() => parser.push(bytes("x".repeat(101))), /longer than 100 bytes/);
  const lines = new SseParser(100);
  assert.throws(() => lines.push(bytes("data: 0123456789\n".repeat(20))), /longer than 100 bytes/);
  const events = new SseParser(100);
  assert.equal(events.push(bytes("data: 0123456789\n\n".repeat(20))).length, 20);
});
