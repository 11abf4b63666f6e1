import { APIConnectionError, APIError, APIUserAbortError, HermError } from "./errors.js";
import { eventOf, isDeletion, type HermEvent, type HermEventType } from "./events.js";
import { MAX_RETRY_AFTER_MS, isTransient, jittered, retryAfterMs, retryDelayMs } from "./retry.js";
import { type Frame, SseParser } from "./sse.js";
import type { Transport } from "./transport.js";
import { connectionError } from "./transport.js";

/**
 * Maximum time in milliseconds without receiving a byte. If the connection is silent for longer, the stream reconnects.
 * The server sends a heartbeat at least every 15 seconds.
 */
const SILENCE_MS = 45_000;
/**
 * Initial wait in milliseconds before a reconnect. The server can replace this value by sending a `retry:` field. Each
 * consecutive failure doubles the wait.
 */
const FIRST_RETRY_MS = 1_000;
/** Maximum wait in milliseconds before a reconnect, unless the server requests a longer one with `Retry-After`. */
const MAX_RETRY_MS = 30_000;

/** Filters and starting point of a stream. A filter that is not set matches all events. */
export interface EventStreamParams {
  /** Selects only events of this thread. */
  thread_id?: string;
  /** Selects only events of this run. */
  run_id?: string;
  /** Selects only events of these types. */
  types?: readonly HermEventType[];
  /**
   * The event id after which the stream starts, for example {@link EventStream.lastEventId}. With `evt_0`, it starts
   * with the first event.
   */
  after?: string;
}

/** Options of a stream. */
export interface EventStreamOptions {
  /** A signal that ends the stream when it is aborted. The iteration then ends without an error. */
  signal?: AbortSignal | undefined;
}

/**
 * The promise of an event stream. Awaiting it returns a stream that is already connected, so that no event after this
 * moment is missed. Iterating it with `for await` connects and yields the events.
 */
export type EventStreamPromise = Promise<EventStream> & AsyncIterable<HermEvent>;

/**
 * A stream of a deployment's events, for one `for await` loop. If the connection breaks or no data arrives for a while,
 * the stream reconnects and resumes after the last event, so that each event is yielded exactly once and in order. The
 * stream ends when the loop is left with `break`, when its signal is aborted, when {@link close} is called, or after
 * the deployment is deleted. It throws errors that are not transient, for example for a revoked key.
 */
export class EventStream implements AsyncIterable<HermEvent> {
  readonly #transport: Transport;
  readonly #path: string;
  readonly #params: EventStreamParams;
  readonly #closing = new AbortController();
  #connection: Connection | undefined;
  #position: string | undefined;
  #retryMs = FIRST_RETRY_MS;
  /** Number of consecutive connections that failed before they returned a frame. */
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

  /** Starts to connect and returns the promise of the stream. Only this library calls this method. @internal */
  static connect(
    transport: Transport,
    path: string,
    params: EventStreamParams,
    options: EventStreamOptions = {},
  ): EventStreamPromise {
    const stream = new EventStream(transport, path, params, options.signal);
    const connected = stream.#connect().then(() => stream);
    // The caller receives the error when it awaits or iterates the promise. Until then, the rejection must not be
    // reported as unhandled.
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

  /** The id of the last event that was yielded or that a filter skipped. Another stream can start `after` this id. */
  get lastEventId(): string | undefined {
    return this.#position;
  }

  /** Closes the stream and its connection. */
  close(): void {
    this.#closing.abort();
    this.#disconnect();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<HermEvent, void, undefined> {
    if (this.#isRead)
      throw new HermError("This stream was already iterated; open a separate stream for each loop.");
    this.#isRead = true;
    try {
      for (;;) {
        const frames = await this.#nextFrames();
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

  /** Connects for the first time. Retries as often as any other request, and then throws the error. */
  async #connect(): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        this.#connection = await this.#open();
        return;
      } catch (error) {
        if (this.#closing.signal.aborted) throw new APIUserAbortError("The stream was aborted.");
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

  /**
   * Returns the next frames of the stream, or `undefined` once the stream is closed. Reconnects if the connection
   * fails.
   */
  async #nextFrames(): Promise<Frame[] | undefined> {
    for (;;) {
      if (this.#closing.signal.aborted) return undefined;
      let failure: unknown;
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
        failure = error;
      }
      this.#disconnect();
      await this.#waitToReconnect(failure);
    }
  }

  async #open(): Promise<Connection> {
    const { types, after: _, ...filters } = this.#params;
    const connection = new Connection(this.#transport, this.#closing.signal);
    const opening = await connection.open(this.#path, { ...filters, types, after: this.#position });
    // The first frames contain the stream's current position. If the connection breaks before the first event, the next
    // connection resumes from this position.
    for (const frame of opening) this.#accept(frame);
    return connection;
  }

  #disconnect(): void {
    this.#connection?.close();
    this.#connection = undefined;
  }

  async #waitToReconnect(failure: unknown): Promise<void> {
    const { runtime } = this.#transport;
    const backoff = jittered(Math.min(MAX_RETRY_MS, this.#retryMs * 2 ** this.#failures), runtime);
    const headers = failure instanceof APIError ? failure.headers : undefined;
    const retryAfter = Math.min(MAX_RETRY_AFTER_MS, retryAfterMs(headers, runtime.now()) ?? 0);
    this.#failures += 1;
    await runtime.sleep(Math.max(backoff, retryAfter), this.#closing.signal);
  }

  /**
   * Advances the stream's position to the frame's id. Returns the frame's event, or `undefined` if the frame has no
   * event or its event was already yielded.
   */
  #accept(frame: Frame): HermEvent | undefined {
    if (frame.retry !== undefined) this.#retryMs = Math.min(MAX_RETRY_MS, frame.retry);
    if (frame.data === undefined) {
      if (frame.id !== undefined && !this.#wasReached(frame.id)) this.#position = frame.id;
      return undefined;
    }
    // Skip an event that was already yielded. A `gap` event is always new, even if its id is not above the current
    // position: that happens if the stream was started `after` an id that does not exist yet.
    if (frame.id !== undefined && frame.event !== "gap" && this.#wasReached(frame.id)) return undefined;
    const event = eventOf(frame.event ?? "message", frame.id ?? this.#position ?? "", frame.data);
    if (frame.id !== undefined) this.#position = frame.id;
    return event;
  }

  #wasReached(id: string): boolean {
    const [number, position] = [eventNumber(id), eventNumber(this.#position)];
    return number !== undefined && position !== undefined && number <= position;
  }
}

function eventNumber(id: string | undefined): bigint | undefined {
  const digits = id === undefined ? undefined : /^evt_(\d{1,20})$/.exec(id)?.[1];
  return digits === undefined ? undefined : BigInt(digits);
}

/** One HTTP connection of an event stream. */
class Connection {
  readonly #transport: Transport;
  readonly #closing = new AbortController();
  readonly #parser = new SseParser();
  readonly #streamSignal: AbortSignal;
  readonly #abort = () => this.#closing.abort();
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  #buffered: Frame[] = [];

  constructor(transport: Transport, streamSignal: AbortSignal) {
    this.#transport = transport;
    this.#streamSignal = streamSignal;
    streamSignal.addEventListener("abort", this.#abort);
    if (streamSignal.aborted) this.#abort();
  }

  /** Connects, and returns the first frames. They contain no event, only the position at which the stream starts. */
  async open(path: string, query: Record<string, string | readonly string[] | undefined>): Promise<Frame[]> {
    try {
      const { response } = await this.#transport.open({
        method: "GET",
        path,
        query,
        headers: { Accept: "text/event-stream" },
        options: { signal: this.#closing.signal, maxRetries: 0 },
      });
      const contentType = response.headers.get("content-type") ?? "no content type";
      if (!contentType.startsWith("text/event-stream") || !response.body) {
        throw new APIConnectionError(
          `The response is not an event stream (${contentType}). Check that baseURL is the URL of a Herm server.`,
        );
      }
      this.#reader = response.body.getReader();
      const frames = (await this.#next()) ?? [];
      this.#buffered = frames.filter(frame => frame.data !== undefined);
      return frames.slice(0, frames.length - this.#buffered.length);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Waits for data and returns at least one frame, or `undefined` at the end of the connection. */
  async read(): Promise<Frame[] | undefined> {
    if (this.#buffered.length > 0) return this.#buffered.splice(0);
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
    let stopWaiting = () => {};
    const silence = new Promise<never>((_, reject) => {
      const stop = this.#transport.runtime.after(SILENCE_MS, () =>
        reject(new Error(`no data received for ${SILENCE_MS / 1000} seconds`)),
      );
      // In some implementations of `fetch`, a pending `read` never settles after the request is aborted. Therefore, the
      // abort itself ends the wait.
      const aborted = () => reject(new Error("the stream was closed"));
      this.#closing.signal.addEventListener("abort", aborted);
      stopWaiting = () => {
        stop();
        this.#closing.signal.removeEventListener("abort", aborted);
      };
    });
    try {
      const { done, value } = await Promise.race([this.#reader.read(), silence]);
      return done || !value ? { done: true } : { done: false, value };
    } catch (error) {
      throw connectionError("reading the event stream", error);
    } finally {
      stopWaiting();
    }
  }

  close(): void {
    this.#streamSignal.removeEventListener("abort", this.#abort);
    this.#closing.abort();
    // If the reader has already failed, `read` reports the error, so the error of `cancel` is ignored.
    this.#reader?.cancel().catch(() => undefined);
  }
}
