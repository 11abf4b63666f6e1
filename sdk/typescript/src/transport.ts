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
import type { FieldError } from "./types.js";
import { VERSION } from "./version.js";

/**
 * If an error response is not in the API's format, for example because a proxy has sent it, the error message quotes at
 * most this number of characters of its body. The rest is omitted.
 */
const MAX_QUOTED_CHARS = 200;

/** Receives log messages of this library. `console` can be used as a logger. */
export interface Logger {
  debug(message: string): void;
  warn(message: string): void;
}

/** Options of a single request. */
export interface RequestOptions {
  /** A signal that aborts the request and its retries. */
  signal?: AbortSignal | undefined;
  /** Timeout for each attempt of the request, in milliseconds. Defaults to the client's `timeout`. */
  timeout?: number;
  /** Maximum number of retries after transient errors. Defaults to the client's `maxRetries`. */
  maxRetries?: number;
  /** Additional request headers. */
  headers?: Record<string, string>;
  /**
   * The idempotency key of a POST request. Defaults to a unique key. If a request with the same key and body is sent
   * again within 24 hours, the server does not execute it again but returns the same response.
   */
  idempotencyKey?: string;
}

export type Query = Record<string, string | number | boolean | readonly string[] | null | undefined>;

/** An API request. All its attempts are sent with these values. */
export interface Call {
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  path: string;
  query?: Query | undefined;
  /** The request body, which is sent as JSON. */
  json?: unknown;
  /** The request body, which is sent unchanged. */
  bytes?: string | Uint8Array | Blob | ReadableStream<Uint8Array>;
  headers?: Record<string, string | undefined>;
  options?: RequestOptions | undefined;
  /**
   * The result to return if the response to a DELETE request was lost and the retry receives a 404, because the
   * resource is already deleted. If it is not set, the retry's 404 is thrown.
   */
  whenDeleted?: unknown;
  /**
   * True if the request has a precondition. Such a request is not retried if the server may have executed it, because
   * its own success would make the precondition of the retry fail.
   */
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

/** A response whose body has not been read. The receiver must call `release` after reading it. */
export interface OpenResponse {
  response: Response;
  release: () => void;
}

/**
 * Builds a URL path and percent-encodes the ids in it. Throws an error for an id that would change the structure of the
 * path, for example `..`.
 */
export function path(parts: TemplateStringsArray, ...ids: string[]): string {
  return parts.reduce((before, part, at) => before + segment(ids[at - 1]) + part);
}

function segment(id: string | undefined): string {
  // A URL parser resolves `.` and `..`, and with an empty id the request would address the whole collection.
  if (typeof id !== "string" || id === "" || id === "." || id === "..") {
    throw new HermError(
      `An id or name in the path must be a non-empty string other than "." and "..", not ${JSON.stringify(id)}.`,
    );
  }
  return encodeURIComponent(id);
}

/**
 * Sends requests with the API key and a timeout, retries transient errors, and throws error responses as {@link
 * APIError}.
 */
export class Transport {
  readonly runtime: Runtime;
  readonly #settings: Settings;

  constructor(settings: Settings, runtime: Runtime) {
    this.#settings = settings;
    this.runtime = runtime;
  }

  /** The maximum number of retries of a request without the option `maxRetries`. */
  get maxRetries(): number {
    return this.#settings.maxRetries;
  }

  /** Sends a request. Returns the parsed JSON body of the response, or `undefined` if the body is empty. */
  json<T>(call: Call): Promise<T> {
    return this.#repeat(call, async ({ response, release }) => {
      const text = await response.text();
      release();
      return parse(text, response) as T;
    });
  }

  /** Sends a request. Returns the response as soon as its headers have arrived, with an unread body. */
  open(call: Call): Promise<OpenResponse> {
    return this.#repeat(call, response => Promise.resolve(response));
  }

  async #repeat<T>(call: Call, read: (response: OpenResponse) => Promise<T>): Promise<T> {
    const { signal, maxRetries = this.maxRetries } = call.options ?? {};
    const request = this.#prepare(call);
    // If the request body is a stream, the first attempt consumes it, so the request cannot be retried.
    const retries = call.bytes instanceof ReadableStream ? 0 : maxRetries;
    let mayBeDone = false;
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#attempt(call, request, read);
      } catch (error) {
        if (!(error instanceof APIError)) throw error;
        if (mayBeDone && error.status === 404 && call.whenDeleted !== undefined) return call.whenDeleted as T;
        mayBeDone ||= mayHaveActed(error);
        if (mayBeDone && call.isConditional) throw error;
        const delay = retryDelayMs(error, attempt, this.runtime);
        if (attempt >= retries || delay === undefined) throw error;
        const reason = error.status ?? error.name;
        this.#settings.logger?.warn(
          `herm: ${call.method} ${call.path} failed (${reason}); attempt ${attempt + 2} of ${retries + 1} in ${Math.round(delay)} ms`,
        );
        await this.runtime.sleep(delay, signal);
      }
    }
  }

  /**
   * Prepares the URL, headers and body that all attempts share. In particular, all attempts have the same idempotency
   * key.
   */
  #prepare(call: Call): { url: string; init: RequestInit } {
    const url = new URL(this.#settings.baseURL + call.path);
    for (const [name, value] of Object.entries(call.query ?? {})) {
      if (value !== undefined && value !== null) url.searchParams.set(name, String(value));
    }
    const headers = new Headers({ Accept: "application/json" });
    // In a browser, a request with this header fails unless the server's CORS policy allows the header.
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
    // The fetch standard requires `duplex` if the body is a stream.
    if (call.bytes instanceof ReadableStream) init.duplex = "half";
    return { url: url.href, init };
  }

  async #attempt<T>(
    call: Call,
    { url, init }: { url: string; init: RequestInit },
    read: (response: OpenResponse) => Promise<T>,
  ): Promise<T> {
    const { signal, timeout = this.#settings.timeout } = call.options ?? {};
    const controller = new AbortController();
    const abort = () => controller.abort();
    const release = () => signal?.removeEventListener("abort", abort);
    if (signal?.aborted) throw new APIUserAbortError("The request was aborted.");
    signal?.addEventListener("abort", abort);
    let timedOut = false;
    const cancelTimeout = this.runtime.after(timeout, () => {
      timedOut = true;
      abort();
    });
    const startedAt = this.runtime.now();
    try {
      const response = await this.#settings.fetch(url, { ...init, signal: controller.signal });
      this.#settings.logger?.debug(
        `herm: ${call.method} ${call.path}: ${response.status} after ${this.runtime.now() - startedAt} ms`,
      );
      if (!response.ok) throw await this.#errorOf(response);
      return await read({ response, release });
    } catch (error) {
      release();
      if (signal?.aborted) throw new APIUserAbortError("The request was aborted.");
      if (error instanceof HermError) throw error;
      if (timedOut) {
        throw new APIConnectionTimeoutError(
          `No response to ${call.method} ${call.path} within ${timeout} ms.`,
        );
      }
      throw connectionError(`${call.method} ${call.path}`, error);
    } finally {
      cancelTimeout();
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

  /**
   * Masks the API key in the text of a response. A server or a proxy may have echoed the key, which must not appear in
   * logs.
   */
  #withoutKey(text: string): string {
    return text.replaceAll(this.#settings.apiKey, "[key]");
  }
}

/** Returns true if the server may have executed the failed request. */
function mayHaveActed(error: APIError): boolean {
  return error instanceof APIConnectionError || ((error.status ?? 0) >= 500 && error.status !== 503);
}

/**
 * Creates the error for a broken connection. `cause` is the value thrown by `fetch` or while reading the response body.
 */
export function connectionError(what: string, cause: unknown): APIConnectionError {
  // The error that `fetch` throws says only "fetch failed". The reason is in its `cause`.
  const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
  const reason = inner instanceof Error ? inner.message || (inner as { code?: string }).code : String(inner);
  return new APIConnectionError(
    `The connection failed during ${what}: ${reason ?? "unknown reason"}`,
    undefined,
    { cause },
  );
}

interface ErrorBody {
  error?: string;
  message?: string;
  details?: FieldError[];
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
      ...(Array.isArray(details) && { details: details as FieldError[] }),
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
    const contentType = response.headers.get("content-type") ?? "no content type";
    throw new HermError(
      `The response is not JSON (${contentType}). Check that baseURL is the URL of a Herm server.`,
    );
  }
}
