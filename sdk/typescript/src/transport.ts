import {
  APIConnectionError,
  APIConnectionTimeoutError,
  APIError,
  APIUserAbortError,
  HermError,
} from "./errors.js";
import { isBrowser } from "./environment.js";
import { retryDelayMs } from "./retry.js";
import type { Runtime } from "./runtime.js";
import type { Fault } from "./types.js";
import { VERSION } from "./version.js";

/** Longest part of an answer that is not the API's own that an error quotes. */
const MAX_QUOTED_CHARS = 200;

/** Where this library says what it does: `console` will do. */
export interface Logger {
  debug(message: string): void;
  warn(message: string): void;
}

/** What can be said of a single request. */
export interface RequestOptions {
  /** Ends the request, its retries included. */
  signal?: AbortSignal | undefined;
  /** Milliseconds that one attempt may take. */
  timeout?: number;
  /** How often the request is made again after a fault that passes. */
  maxRetries?: number;
  /** Headers beside those that this library sends. */
  headers?: Record<string, string>;
  /** Of a POST: instead of the one that is made for it. The same key and body within a day give the same answer. */
  idempotencyKey?: string;
}

export type Query = Record<string, string | number | boolean | readonly string[] | null | undefined>;

/** A request as a resource makes it. */
export interface Call {
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  path: string;
  query?: Query | undefined;
  /** Sent as JSON. */
  json?: unknown;
  /** Sent as it is. */
  bytes?: string | Uint8Array | Blob | ReadableStream<Uint8Array>;
  headers?: Record<string, string | undefined>;
  options?: RequestOptions | undefined;
  /** Of a DELETE: the answer where a retry finds that an earlier attempt, whose own answer was lost, has done it. */
  whenGone?: unknown;
  /** Its condition holds once: where an answer was lost, another attempt would say that it did not hold. */
  isConditional?: boolean;
}

export interface Settings {
  apiKey: string;
  baseURL: string;
  timeout: number;
  maxRetries: number;
  fetch: typeof fetch;
  defaultHeaders: Record<string, string>;
  logger: Logger | undefined;
}

/** An answer whose body is still to be read. `release` is to be called once it is. */
export interface OpenAnswer {
  response: Response;
  release: () => void;
}

/** Writes a path with ids in it. An id that would make it another path is refused. */
export function path(parts: TemplateStringsArray, ...ids: string[]): string {
  return parts.reduce((before, part, at) => before + segment(ids[at - 1]) + part);
}

function segment(id: string | undefined): string {
  // A URL drops `.` and `..`, and an empty id would name the collection.
  if (typeof id !== "string" || id === "" || id === "." || id === "..") {
    throw new HermError(`an id or a name must be a text that is not empty; got ${JSON.stringify(id)}`);
  }
  return encodeURIComponent(id);
}

/** Makes requests: with the key, within a time, again after faults that pass; an answer that says no is thrown. */
export class Transport {
  readonly runtime: Runtime;
  readonly #settings: Settings;

  constructor(settings: Settings, runtime: Runtime) {
    this.#settings = settings;
    this.runtime = runtime;
  }

  /** How often a request is made again unless it says so itself. */
  get maxRetries(): number {
    return this.#settings.maxRetries;
  }

  /** The answer's JSON; `undefined` where it has no body. */
  json<T>(call: Call): Promise<T> {
    return this.#repeat(call, async ({ response, release }) => {
      const text = await response.text();
      release();
      return parse(text, response) as T;
    });
  }

  /** The answer, its body unread. */
  open(call: Call): Promise<OpenAnswer> {
    return this.#repeat(call, answer => Promise.resolve(answer));
  }

  async #repeat<T>(call: Call, read: (answer: OpenAnswer) => Promise<T>): Promise<T> {
    const { signal, maxRetries = this.maxRetries } = call.options ?? {};
    const request = this.#prepare(call);
    // A stream is used up by its first attempt.
    const retries = call.bytes instanceof ReadableStream ? 0 : maxRetries;
    let mayBeDone = false;
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#attempt(call, request, read);
      } catch (error) {
        if (!(error instanceof APIError)) throw error;
        if (mayBeDone && error.status === 404 && call.whenGone !== undefined) return call.whenGone as T;
        mayBeDone ||= losesAnswer(error);
        if (mayBeDone && call.isConditional) throw error;
        const delay = retryDelayMs(error, attempt, this.runtime);
        if (attempt >= retries || delay === undefined) throw error;
        const why = error.status ?? error.name;
        this.#settings.logger?.warn(
          `herm: ${call.method} ${call.path}: ${why}; attempt ${attempt + 2} of ${retries + 1} in ${Math.round(delay)} ms`,
        );
        await this.runtime.sleep(delay, signal);
      }
    }
  }

  /** All that is the same in each attempt, the idempotency key above all. */
  #prepare(call: Call): { url: string; init: RequestInit } {
    const url = new URL(this.#settings.baseURL + call.path);
    for (const [name, value] of Object.entries(call.query ?? {})) {
      if (value !== undefined && value !== null) url.searchParams.set(name, String(value));
    }
    const headers = new Headers({ Accept: "application/json" });
    // A page may not say so without asking the server first.
    if (!isBrowser()) headers.set("User-Agent", `herm-typescript/${VERSION}`);
    for (const [name, value] of Object.entries({ ...this.#settings.defaultHeaders, ...call.headers })) {
      if (value !== undefined) headers.set(name, value);
    }
    if (call.json !== undefined) headers.set("Content-Type", "application/json");
    if (call.method === "POST") {
      headers.set("Idempotency-Key", call.options?.idempotencyKey ?? this.runtime.unique());
    }
    for (const [name, value] of Object.entries(call.options?.headers ?? {})) headers.set(name, value);
    headers.set("Authorization", `Bearer ${this.#settings.apiKey}`);
    const init: RequestInit & { duplex?: "half" } = { method: call.method, headers };
    if (call.json !== undefined) init.body = JSON.stringify(call.json);
    if (call.bytes !== undefined) init.body = call.bytes as BodyInit;
    // Asked for by the standard where a body is a stream.
    if (call.bytes instanceof ReadableStream) init.duplex = "half";
    return { url: url.href, init };
  }

  async #attempt<T>(
    call: Call,
    { url, init }: { url: string; init: RequestInit },
    read: (answer: OpenAnswer) => Promise<T>,
  ): Promise<T> {
    const { signal, timeout = this.#settings.timeout } = call.options ?? {};
    const controller = new AbortController();
    const abort = () => controller.abort();
    const release = () => signal?.removeEventListener("abort", abort);
    if (signal?.aborted) throw new APIUserAbortError("the request was aborted");
    signal?.addEventListener("abort", abort);
    let late = false;
    const inTime = this.runtime.after(timeout, () => {
      late = true;
      abort();
    });
    const begun = this.runtime.now();
    try {
      const response = await this.#settings.fetch(url, { ...init, signal: controller.signal });
      this.#settings.logger?.debug(
        `herm: ${call.method} ${call.path}: ${response.status} after ${this.runtime.now() - begun} ms`,
      );
      if (!response.ok) throw await this.#errorOf(response);
      return await read({ response, release });
    } catch (error) {
      release();
      if (signal?.aborted) throw new APIUserAbortError("the request was aborted");
      if (error instanceof HermError) throw error;
      if (late) {
        throw new APIConnectionTimeoutError(`no answer to ${call.method} ${call.path} within ${timeout} ms`);
      }
      throw connectionError(`${call.method} ${call.path}`, error);
    } finally {
      inTime();
    }
  }

  async #errorOf(response: Response): Promise<APIError> {
    const text = this.#withoutKey(await response.text());
    const { status, headers } = response;
    const requestId = headers.get("x-request-id") ?? undefined;
    const body = errorBody(text);
    if (!body) return APIError.of({ status, headers, requestId, message: text.slice(0, MAX_QUOTED_CHARS) });
    const { error: code, message, details, request_id } = body;
    return APIError.of({ status, headers, code, message, details, requestId: request_id ?? requestId });
  }

  /** What a server or a proxy between repeats of a request must not carry the key into a log. */
  #withoutKey(text: string): string {
    return text.replaceAll(this.#settings.apiKey, "[key]");
  }
}

/** Whether the server may have done what it was asked although its answer was lost. */
function losesAnswer(error: APIError): boolean {
  return error instanceof APIConnectionError || ((error.status ?? 0) >= 500 && error.status !== 503);
}

/** The error for a connection that broke, by whatever `fetch` or a body's reader threw. */
export function connectionError(what: string, cause: unknown): APIConnectionError {
  // `fetch` says "fetch failed" and keeps the reason beneath.
  const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
  const reason = inner instanceof Error ? inner.message || (inner as { code?: string }).code : String(inner);
  return new APIConnectionError(
    `the connection failed at ${what}: ${reason ?? "no reason given"}`,
    undefined,
    { cause },
  );
}

interface ErrorBody {
  error?: string;
  message?: string;
  details?: Fault[];
  request_id?: string;
}

function errorBody(text: string): ErrorBody | undefined {
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body !== "object" || body === null || !("error" in body)) return undefined;
    const { error, message, details, request_id } = body as Record<string, unknown>;
    return {
      ...(typeof error === "string" && { error }),
      ...(typeof message === "string" && { message }),
      ...(Array.isArray(details) && { details: details as Fault[] }),
      ...(typeof request_id === "string" && { request_id }),
    };
  } catch {
    return undefined;
  }
}

function parse(text: string, response: Response): unknown {
  if (text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    const kind = response.headers.get("content-type") ?? "no content type";
    throw new HermError(`the answer is not JSON (${kind}): does baseURL name a Herm server?`);
  }
}
