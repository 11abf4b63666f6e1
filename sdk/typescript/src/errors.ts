import type { FieldError } from "./types.js";

/** Base class of this library's own errors. */
export class HermError extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** The parts of an HTTP response from which an {@link APIError} is created. */
export interface ErrorAnswer {
  status: number;
  code?: string | undefined;
  message?: string | undefined;
  details?: FieldError[] | undefined;
  requestId?: string | undefined;
  headers: Headers;
}

/** A request failed. For most HTTP error statuses, a subclass of this error is thrown. */
export class APIError extends HermError {
  /** The HTTP status of the response, or `undefined` if the server did not respond. */
  readonly status: number | undefined;
  /** The error code of the response, for example `validation_error`. Unlike the message, it never changes. */
  readonly code: string | undefined;
  /** The invalid fields of the request. Each has a path, for example `skills[1].url`, and a message. */
  readonly details: FieldError[];
  /** The id of the request, which also identifies it in the server's log. */
  readonly requestId: string | undefined;
  /** The headers of the response. */
  readonly headers: Headers | undefined;

  constructor(message: string, response?: ErrorAnswer, options?: { cause?: unknown }) {
    super(message, options);
    this.status = response?.status;
    this.code = response?.code;
    this.details = response?.details ?? [];
    this.requestId = response?.requestId;
    this.headers = response?.headers;
  }

  /** Creates an error of the subclass for the HTTP status of the response. */
  static of(response: ErrorAnswer): APIError {
    const fields = (response.details ?? []).map(field => `\n  ${field.path}: ${field.message}`).join("");
    const message = `${response.status} ${response.message ?? "The response contains no error message."}${fields}`;
    const Kind = KINDS[response.status] ?? (response.status >= 500 ? InternalServerError : APIError);
    return new Kind(message, response);
  }
}

/** HTTP 400: the body, the path or the query of the request is invalid. `details` lists the invalid fields. */
export class BadRequestError extends APIError {}
/** HTTP 401: the API key is missing, malformed, unknown, expired or revoked. */
export class AuthenticationError extends APIError {}
/** HTTP 403: the API key lacks the scope that the operation requires. */
export class PermissionDeniedError extends APIError {}
/** HTTP 404: the account has no such resource, or the API key is restricted to other resources. */
export class NotFoundError extends APIError {}
/**
 * HTTP 409: the request conflicts with the state of the resource or with another request, or its precondition failed.
 */
export class ConflictError extends APIError {}
/** HTTP 422: the request is valid, but a skill or a secret that it refers to cannot be used. */
export class UnprocessableEntityError extends APIError {}
/** HTTP 429: the key has sent too many requests. The client's retries failed too. */
export class RateLimitError extends APIError {}
/** HTTP 500 to 599: the server failed or is unavailable. The client's retries failed too. */
export class InternalServerError extends APIError {}
/** The client received no response, because the server is unreachable or the connection broke. */
export class APIConnectionError extends APIError {}
/** The client received no response within the timeout. */
export class APIConnectionTimeoutError extends APIConnectionError {}
/** The request was aborted through its `signal`. */
export class APIUserAbortError extends APIError {}

const KINDS: Record<number, new (message: string, response: ErrorAnswer) => APIError> = {
  400: BadRequestError,
  401: AuthenticationError,
  403: PermissionDeniedError,
  404: NotFoundError,
  409: ConflictError,
  422: UnprocessableEntityError,
  429: RateLimitError,
};
