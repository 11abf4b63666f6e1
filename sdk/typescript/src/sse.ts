import { HermError } from "./errors.js";

/** Longest line of a stream, and most bytes of one event's data: several times what the server accepts as a body. */
export const MAX_EVENT_BYTES = 16 * 1024 * 1024;

/** Room for a line at first; it grows with the longest line. */
const FIRST_LINE_BYTES = 4096;

const LF = 0x0a;
const CR = 0x0d;
const BOM = "\uFEFF";

/** What stands between two blank lines of a stream. */
export interface Frame {
  event?: string;
  id?: string;
  retry?: number;
  /** `undefined` where there was no `data:` line: a heartbeat. */
  data?: string;
}

/**
 * Reads server-sent events as the HTML standard has them, out of chunks that may be split anywhere: within a line's
 * end, within a character. What is not ended by a blank line when the stream breaks is dropped.
 */
export class SseParser {
  readonly #maxBytes: number;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  /** The line that is not ended yet: the first `lineBytes` of it. */
  #line = new Uint8Array(FIRST_LINE_BYTES);
  #lineBytes = 0;
  #dataBytes = 0;
  #data: string[] | undefined;
  #frame: Frame = {};
  #isFirstLine = true;
  /** The last byte was a CR: an LF that follows belongs to it. */
  #afterCr = false;

  constructor(maxBytes = MAX_EVENT_BYTES) {
    this.#maxBytes = maxBytes;
  }

  /** Takes the next bytes; gives the frames that they complete. */
  push(chunk: Uint8Array): Frame[] {
    const frames: Frame[] = [];
    let begin = 0;
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at];
      const isTail = this.#afterCr && byte === LF;
      this.#afterCr = byte === CR;
      if (isTail) {
        begin = at + 1;
      } else if (byte === LF || byte === CR) {
        this.#keep(chunk.subarray(begin, at));
        begin = at + 1;
        const frame = this.#read(this.#takeLine());
        if (frame) frames.push(frame);
      }
    }
    this.#keep(chunk.subarray(begin));
    return frames;
  }

  #keep(part: Uint8Array): void {
    const bytes = this.#lineBytes + part.length;
    this.#limit(bytes);
    if (bytes > this.#line.length) {
      const larger = new Uint8Array(Math.max(bytes, 2 * this.#line.length));
      larger.set(this.#line.subarray(0, this.#lineBytes));
      this.#line = larger;
    }
    this.#line.set(part, this.#lineBytes);
    this.#lineBytes = bytes;
  }

  #limit(bytes: number): void {
    if (bytes > this.#maxBytes) {
      throw new HermError(`an event of the stream is longer than ${this.#maxBytes} bytes`);
    }
  }

  #takeLine(): string {
    const text = this.#decoder.decode(this.#line.subarray(0, this.#lineBytes));
    this.#lineBytes = 0;
    const isFirst = this.#isFirstLine;
    this.#isFirstLine = false;
    return isFirst && text.startsWith(BOM) ? text.slice(1) : text;
  }

  #read(line: string): Frame | undefined {
    if (line === "") return this.#finish();
    const colon = line.indexOf(":");
    // A comment.
    if (colon === 0) return undefined;
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    this.#field(field, value);
    return undefined;
  }

  #field(field: string, value: string): void {
    if (field === "data") {
      this.#dataBytes += value.length + 1;
      this.#limit(this.#dataBytes);
      (this.#data ??= []).push(value);
    } else if (field === "event") {
      this.#frame.event = value;
    } else if (field === "id" && !value.includes("\0")) {
      this.#frame.id = value;
    } else if (field === "retry" && /^\d+$/.test(value)) {
      this.#frame.retry = Number(value);
    }
  }

  #finish(): Frame | undefined {
    const frame = this.#frame;
    if (this.#data) frame.data = this.#data.join("\n");
    this.#frame = {};
    this.#data = undefined;
    this.#dataBytes = 0;
    return Object.keys(frame).length > 0 ? frame : undefined;
  }
}
