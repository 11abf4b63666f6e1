import { APIConnectionError, type APIError } from "./errors.js";
import type { Runtime } from "./runtime.js";

/** Wait before the first retry, in milliseconds. The wait doubles with each further retry. */
const FIRST_DELAY_MS = 500;
/** Maximum wait before a retry, in milliseconds, unless the server requests a longer one. */
const MAX_DELAY_MS = 8_000;
/**
 * Maximum wait in milliseconds that the client accepts from a `Retry-After` header. If the server asks for a longer
 * wait, a request fails without a retry, and a stream reconnects after this maximum.
 */
export const MAX_RETRY_AFTER_MS = 60_000;
/**
 * Maximum random delay in milliseconds that is added to a wait requested by the server, so that clients with the same
 * `Retry-After` do not all retry at the same time.
 */
const SPREAD_MS = 250;

/** Returns true if the error may be temporary, so that the same request may succeed later. */
export function isTransient(error: APIError): boolean {
  if (error instanceof APIConnectionError) return true;
  const { status } = error;
  if (status === undefined) return false;
  // A 409 is transient only if an earlier attempt with the same idempotency key is still in progress. Only in that case
  // does the response have a Retry-After header.
  if (status === 409) return error.headers?.has("retry-after") ?? false;
  return status === 408 || status === 429 || status >= 500;
}

/**
 * Returns the wait in milliseconds that the `Retry-After` header requests, or `undefined` without a valid header. The
 * header contains a number of seconds or a date (RFC 9110, section 10.2.3).
 */
export function retryAfterMs(headers: Headers | undefined, now: number): number | undefined {
  const value = headers?.get("retry-after")?.trim();
  if (!value) return undefined;
  if (/^\d+(\.\d+)?$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** Returns a random value from `ms / 2` to `ms`. */
export function jittered(ms: number, runtime: Runtime): number {
  return ms * (0.5 + 0.5 * runtime.random());
}

/**
 * Returns the wait in milliseconds before the next attempt, or `undefined` if the request should not be retried.
 * `attempt` is 0 after the first attempt.
 */
export function retryDelayMs(error: APIError, attempt: number, runtime: Runtime): number | undefined {
  if (!isTransient(error)) return undefined;
  const backoff = jittered(Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt), runtime);
  const retryAfter = retryAfterMs(error.headers, runtime.now());
  if (retryAfter === undefined) return backoff;
  if (retryAfter > MAX_RETRY_AFTER_MS) return undefined;
  return Math.max(backoff, retryAfter + SPREAD_MS * runtime.random());
}
