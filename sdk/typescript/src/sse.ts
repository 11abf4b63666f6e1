import { HermError } from "./errors.js";

/**
 * Maximum size in bytes of a line and of the data of one event. If either is larger, the parser throws an error. The
 * limit is several times the server's limit for a request body.
 */
export const MAX_EVENT_BYTES = 16 * 1024 * 1024;

/** Initial size in bytes of the line buffer. It grows if a line is longer. */
const INITIAL_LINE_BYTES = 4096;

const LF = 0x0a;
const CR = 0x0d;
const BOM = "\uFEFF";

/** A frame of an event stream: all fields between two blank lines. It usually contains an event. */
export interface Frame {
  event?: string;
  id?: string;
  retry?: number;
  /** The data of the event, or `undefined` for a frame without a `data:` line, for example a heartbeat. */
  data?: string;
}

/**
 * Parses server-sent events according to the HTML standard. A chunk of bytes may end anywhere, even within a line
 * ending or a character. If the stream breaks, the frame that is not yet closed by a blank line is discarded.
 */
export class SseParser {
  readonly #maxBytes: number;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  /** The buffer for the line that is not yet complete. Only its first `lineBytes` bytes are in use. */
  #line = new Uint8Array(INITIAL_LINE_BYTES);
  #lineBytes = 0;
  #dataBytes = 0;
  #data: string[] | undefined;
  #frame: Frame = {};
  #isFirstLine = true;
  /** True if the last byte was a CR. An LF that follows it belongs to the same line ending. */
  #afterCr = false;

  constructor(maxBytes = MAX_EVENT_BYTES) {
    this.#maxBytes = maxBytes;
  }

  /** Parses the next bytes and returns the frames that they complete. */
  push(chunk: Uint8Array): Frame[] {
    const frames: Frame[] = [];
    let begin = 0;
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at];
      const isLfOfCrLf = this.#afterCr && byte === LF;
      this.#afterCr = byte === CR;
      if (isLfOfCrLf) {
        begin = at + 1;
      } else if (byte === LF || byte === CR) {
        this.#append(chunk.subarray(begin, at));
        begin = at + 1;
        const frame = this.#parseLine(this.#takeLine());
        if (frame) frames.push(frame);
      }
    }
    this.#append(chunk.subarray(begin));
    return frames;
  }

  #append(part: Uint8Array): void {
    const bytes = this.#lineBytes + part.length;
    this.#checkLimit(bytes);
    if (bytes > this.#line.length) {
      const larger = new Uint8Array(Math.max(bytes, 2 * this.#line.length));
      larger.set(this.#line.subarray(0, this.#lineBytes));
      this.#line = larger;
    }
    this.#line.set(part, this.#lineBytes);
    this.#lineBytes = bytes;
  }

  #checkLimit(bytes: number): void {
    if (bytes > this.#maxBytes) {
      throw new HermError(`An event of the stream is longer than ${this.#maxBytes} bytes.`);
    }
  }

  #takeLine(): string {
    const text = this.#decoder.decode(this.#line.subarray(0, this.#lineBytes));
    this.#lineBytes = 0;
    const isFirst = this.#isFirstLine;
    this.#isFirstLine = false;
    return isFirst && text.startsWith(BOM) ? text.slice(1) : text;
  }

  #parseLine(line: string): Frame | undefined {
    if (line === "") return this.#finishFrame();
    const colon = line.indexOf(":");
    // A line that begins with a colon is a comment and has no effect.
    if (colon === 0) return undefined;
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    this.#setField(field, value);
    return undefined;
  }

  #setField(field: string, value: string): void {
    if (field === "data") {
      this.#dataBytes += value.length + 1;
      this.#checkLimit(this.#dataBytes);
      (this.#data ??= []).push(value);
    } else if (field === "event") {
      this.#frame.event = value;
    } else if (field === "id" && !value.includes("\0")) {
      this.#frame.id = value;
    } else if (field === "retry" && /^\d+$/.test(value)) {
      this.#frame.retry = Number(value);
    }
  }

  #finishFrame(): Frame | undefined {
    const frame = this.#frame;
    if (this.#data) frame.data = this.#data.join("\n");
    this.#frame = {};
    this.#data = undefined;
    this.#dataBytes = 0;
    return Object.keys(frame).length > 0 ? frame : undefined;
  }
}
