import { APIConnectionError, type APIError } from "./errors.js";
import type { Runtime } from "./runtime.js";

/** Wait before the first retry; each further one waits twice as long. */
const FIRST_DELAY_MS = 500;
/** Longest wait between two retries that the server did not ask for. */
const MAX_DELAY_MS = 8_000;
/** Longest wait that a server may ask for; one that asks for more gets no retry, so that the caller can decide. */
export const MAX_RETRY_AFTER_MS = 60_000;
/** Spreads those whom a server sent away with the same `Retry-After`. */
const SPREAD_MS = 250;

/** Whether the same request may succeed if it is made again. */
export function isTransient(error: APIError): boolean {
  if (error instanceof APIConnectionError) return true;
  const { status } = error;
  if (status === undefined) return false;
  // A conflict passes by itself only where the first attempt is still in flight, and then the server says when to ask.
  if (status === 409) return error.headers?.has("retry-after") ?? false;
  return status === 408 || status === 429 || status >= 500;
}

/** How long the answer asks to wait: seconds or a date (RFC 9110, 10.2.3). */
export function retryAfterMs(headers: Headers | undefined, now: number): number | undefined {
  const value = headers?.get("retry-after")?.trim();
  if (!value) return undefined;
  if (/^\d+(\.\d+)?$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** Half of `ms` up to all of it. */
export function jittered(ms: number, runtime: Runtime): number {
  return ms * (0.5 + 0.5 * runtime.random());
}

/** How long to wait before the request is made again; `undefined` when it should not be. `attempt` is 0 at first. */
export function retryDelayMs(error: APIError, attempt: number, runtime: Runtime): number | undefined {
  if (!isTransient(error)) return undefined;
  const backoff = jittered(Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt), runtime);
  const asked = retryAfterMs(error.headers, runtime.now());
  if (asked === undefined) return backoff;
  if (asked > MAX_RETRY_AFTER_MS) return undefined;
  return Math.max(backoff, asked + SPREAD_MS * runtime.random());
}
