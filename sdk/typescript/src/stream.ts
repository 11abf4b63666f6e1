import { APIConnectionError, APIError, APIUserAbortError, HermError } from "./errors.js";
import { eventOf, isDeletion, type HermEvent, type HermEventType } from "./events.js";
import { MAX_RETRY_AFTER_MS, isTransient, jittered, retryAfterMs, retryDelayMs } from "./retry.js";
import { type Frame, SseParser } from "./sse.js";
import type { Transport } from "./transport.js";
import { connectionError } from "./transport.js";

/** A connection that gives no byte for so long is dead: the server sends a heartbeat every 15 s at least. */
const SILENCE_MS = 45_000;
/** Wait before a reconnect until the server says how long it should be. */
const FIRST_RETRY_MS = 1_000;
/** Longest wait before a reconnect that the server did not ask for. */
const MAX_RETRY_MS = 30_000;

/** Which events of a deployment are wanted; what is left out does not filter. */
export interface EventStreamParams {
  /** Events of this thread. */
  thread_id?: string;
  /** Events of this run. */
  run_id?: string;
  /** Events of these types. */
  types?: readonly HermEventType[];
  /** Everything after this event id, such as {@link EventStream.lastEventId}; `evt_0`: from the start. */
  after?: string;
}

/** What a stream may be told beside what it streams. */
export interface EventStreamOptions {
  /** Ends the stream: its iteration is then over, without an error. */
  signal?: AbortSignal | undefined;
}

/** Awaited, a stream that is connected: it misses nothing from then on. Iterated with `for await`, its events. */
export type EventStreamPromise = Promise<EventStream> & AsyncIterable<HermEvent>;

/**
 * The events of a deployment, for one `for await`. A connection that breaks or falls silent is made again, from the
 * last event on: each event is given once, in order. It ends by `break`, by its signal, by {@link close} and after the
 * deployment's deletion; it throws what does not pass by waiting, such as a revoked key.
 */
export class EventStream implements AsyncIterable<HermEvent> {
  readonly #transport: Transport;
  readonly #path: string;
  readonly #params: EventStreamParams;
  readonly #closing = new AbortController();
  #connection: Connection | undefined;
  #position: string | undefined;
  #retryMs = FIRST_RETRY_MS;
  /** Connections in a row that gave nothing. */
  #failures = 0;
  #isRead = false;

  private constructor(transport: Transport, path: string, params: EventStreamParams, signal?: AbortSignal) {
    this.#transport = transport;
    this.#path = path;
    this.#params = params;
    this.#position = params.after;
    if (signal?.aborted) this.#closing.abort();
    signal?.addEventListener("abort", () => this.#closing.abort(), { signal: this.#closing.signal });
  }

  /** @internal */
  static connect(
    transport: Transport,
    path: string,
    params: EventStreamParams,
    options: EventStreamOptions = {},
  ): EventStreamPromise {
    const stream = new EventStream(transport, path, params, options.signal);
    const connected = stream.#begin().then(() => stream);
    // Told to whoever awaits or iterates it, be it later; until then it is nobody's unhandled error.
    connected.catch(() => undefined);
    return Object.assign(connected, {
      async *[Symbol.asyncIterator](): AsyncGenerator<HermEvent, void, undefined> {
        try {
          await connected;
        } catch (error) {
          if (error instanceof APIUserAbortError) return;
          throw error;
        }
        yield* stream;
      },
    });
  }

  /** The last event that was given or, under a filter, passed over: what another stream goes on `after`. */
  get lastEventId(): string | undefined {
    return this.#position;
  }

  /** Ends the stream and its connection. */
  close(): void {
    this.#closing.abort();
    this.#disconnect();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<HermEvent, void, undefined> {
    if (this.#isRead)
      throw new HermError("this stream is being read already, or was; open another one for each reader");
    this.#isRead = true;
    try {
      for (;;) {
        const frames = await this.#frames();
        if (!frames) return;
        for (const frame of frames) {
          const event = this.#accept(frame);
          if (!event) continue;
          yield event;
          if (this.#closing.signal.aborted || isDeletion(event)) return;
        }
      }
    } finally {
      this.close();
    }
  }

  /** Connects for the first time. A server that cannot be reached is given up as for any other request. */
  async #begin(): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        this.#connection = await this.#open();
        return;
      } catch (error) {
        if (this.#closing.signal.aborted) throw new APIUserAbortError("the stream was aborted");
        const delay =
          error instanceof APIError ? retryDelayMs(error, attempt, this.#transport.runtime) : undefined;
        if (delay === undefined || attempt >= this.#transport.maxRetries) {
          this.close();
          throw error;
        }
        await this.#transport.runtime.sleep(delay, this.#closing.signal);
      }
    }
  }

  /** The next frames, of this connection or of another; `undefined` once the stream is closed. */
  async #frames(): Promise<Frame[] | undefined> {
    for (;;) {
      if (this.#closing.signal.aborted) return undefined;
      let fault: unknown;
      try {
        this.#connection ??= await this.#open();
        const frames = await this.#connection.read();
        if (frames) {
          this.#failures = 0;
          return frames;
        }
      } catch (error) {
        if (this.#closing.signal.aborted) return undefined;
        if (!(error instanceof APIError) || !isTransient(error)) throw error;
        fault = error;
      }
      this.#disconnect();
      await this.#pause(fault);
    }
  }

  async #open(): Promise<Connection> {
    const { types, after: _, ...filters } = this.#params;
    const connection = new Connection(this.#transport, this.#closing.signal);
    const opening = await connection.open(this.#path, { ...filters, types, after: this.#position });
    // Where it begins: from here on nothing is missed, whatever happens to this connection.
    for (const frame of opening) this.#accept(frame);
    return connection;
  }

  #disconnect(): void {
    this.#connection?.close();
    this.#connection = undefined;
  }

  async #pause(fault: unknown): Promise<void> {
    const { runtime } = this.#transport;
    const backoff = jittered(Math.min(MAX_RETRY_MS, this.#retryMs * 2 ** this.#failures), runtime);
    const headers = fault instanceof APIError ? fault.headers : undefined;
    const asked = Math.min(MAX_RETRY_AFTER_MS, retryAfterMs(headers, runtime.now()) ?? 0);
    this.#failures += 1;
    await runtime.sleep(Math.max(backoff, asked), this.#closing.signal);
  }

  /** Moves on to the frame; gives its event, unless it has none or was given before. */
  #accept(frame: Frame): HermEvent | undefined {
    if (frame.retry !== undefined) this.#retryMs = Math.min(MAX_RETRY_MS, frame.retry);
    if (frame.data === undefined) {
      if (frame.id !== undefined && !this.#isPast(frame.id)) this.#position = frame.id;
      return undefined;
    }
    // A gap may lead back: what was asked for lies beyond the log.
    if (frame.id !== undefined && frame.event !== "gap" && this.#isPast(frame.id)) return undefined;
    const event = eventOf(frame.event ?? "message", frame.id ?? this.#position ?? "", frame.data);
    if (frame.id !== undefined) this.#position = frame.id;
    return event;
  }

  #isPast(id: string): boolean {
    const [number, position] = [numberOf(id), numberOf(this.#position)];
    return number !== undefined && position !== undefined && number <= position;
  }
}

function numberOf(id: string | undefined): bigint | undefined {
  const digits = id === undefined ? undefined : /^evt_(\d{1,20})$/.exec(id)?.[1];
  return digits === undefined ? undefined : BigInt(digits);
}

/** One connection of a stream. */
class Connection {
  readonly #transport: Transport;
  readonly #ending = new AbortController();
  readonly #parser = new SseParser();
  readonly #outer: AbortSignal;
  readonly #end = () => this.#ending.abort();
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  #ready: Frame[] = [];

  constructor(transport: Transport, outer: AbortSignal) {
    this.#transport = transport;
    this.#outer = outer;
    outer.addEventListener("abort", this.#end);
    if (outer.aborted) this.#end();
  }

  /** Connects, and waits for the opening frame, which has no event and says where the stream begins. */
  async open(path: string, query: Record<string, string | readonly string[] | undefined>): Promise<Frame[]> {
    try {
      const { response } = await this.#transport.open({
        method: "GET",
        path,
        query,
        headers: { Accept: "text/event-stream" },
        options: { signal: this.#ending.signal, maxRetries: 0 },
      });
      const kind = response.headers.get("content-type") ?? "no content type";
      if (!kind.startsWith("text/event-stream") || !response.body) {
        throw new APIConnectionError(`the events came as ${kind}: does baseURL name a Herm server?`);
      }
      this.#reader = response.body.getReader();
      const frames = (await this.#next()) ?? [];
      this.#ready = frames.filter(frame => frame.data !== undefined);
      return frames.slice(0, frames.length - this.#ready.length);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The next frames, at least one; `undefined` at the end. */
  async read(): Promise<Frame[] | undefined> {
    if (this.#ready.length > 0) return this.#ready.splice(0);
    return this.#next();
  }

  async #next(): Promise<Frame[] | undefined> {
    for (;;) {
      const { done, value } = await this.#chunk();
      if (done) return undefined;
      const frames = this.#parser.push(value);
      if (frames.length > 0) return frames;
    }
  }

  async #chunk(): Promise<{ done: true; value?: undefined } | { done: false; value: Uint8Array }> {
    if (!this.#reader) return { done: true };
    let speak = () => {};
    const silence = new Promise<never>((_, reject) => {
      const stop = this.#transport.runtime.after(SILENCE_MS, () => reject(new Error("it fell silent")));
      // Not every reader wakes up by itself when its request is aborted.
      const aborted = () => reject(new Error("it was closed"));
      this.#ending.signal.addEventListener("abort", aborted);
      speak = () => {
        stop();
        this.#ending.signal.removeEventListener("abort", aborted);
      };
    });
    try {
      const { done, value } = await Promise.race([this.#reader.read(), silence]);
      return done || !value ? { done: true } : { done: false, value };
    } catch (error) {
      throw connectionError("the stream of events", error);
    } finally {
      speak();
    }
  }

  close(): void {
    this.#outer.removeEventListener("abort", this.#end);
    this.#ending.abort();
    // It may have failed already; that is told by whoever reads.
    this.#reader?.cancel().catch(() => undefined);
  }
}
