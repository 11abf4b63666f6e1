import type { Fault } from "./types.js";

/** Whatever this library throws. */
export class HermError extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** What a server said when it refused or failed. */
export interface ErrorAnswer {
  status: number;
  code?: string | undefined;
  message?: string | undefined;
  details?: Fault[] | undefined;
  requestId?: string | undefined;
  headers: Headers;
}

/** A request that was refused or failed. The subclass says by which status. */
export class APIError extends HermError {
  /** The HTTP status; `undefined` where no answer came. */
  readonly status: number | undefined;
  /** The server's stable code, such as `validation_error` or `idempotency_conflict`. */
  readonly code: string | undefined;
  /** Each fault that the server found: where (`skills[1].url`) and what. */
  readonly details: Fault[];
  /** The id to look this request up by in the server's log. */
  readonly requestId: string | undefined;
  /** The headers of the answer. */
  readonly headers: Headers | undefined;

  constructor(message: string, answer?: ErrorAnswer, options?: { cause?: unknown }) {
    super(message, options);
    this.status = answer?.status;
    this.code = answer?.code;
    this.details = answer?.details ?? [];
    this.requestId = answer?.requestId;
    this.headers = answer?.headers;
  }

  /** The error of the class that fits the answer's status. */
  static of(answer: ErrorAnswer): APIError {
    const faults = (answer.details ?? []).map(fault => `\n  ${fault.path}: ${fault.message}`).join("");
    const message = `${answer.status} ${answer.message ?? "The server gave no reason."}${faults}`;
    const Kind = KINDS[answer.status] ?? (answer.status >= 500 ? InternalServerError : APIError);
    return new Kind(message, answer);
  }
}

/** 400: the body, the path or the query is not valid; `details` names each fault. */
export class BadRequestError extends APIError {}
/** 401: the key is missing, malformed, unknown, expired or revoked. */
export class AuthenticationError extends APIError {}
/** 403: the key lacks the scope. */
export class PermissionDeniedError extends APIError {}
/** 404: there is no such resource in this account. */
export class NotFoundError extends APIError {}
/** 409: the resource's state does not allow it. */
export class ConflictError extends APIError {}
/** 422: a skill or a secret reference cannot be used. */
export class UnprocessableEntityError extends APIError {}
/** 429: too many requests; the retries have been used up. */
export class RateLimitError extends APIError {}
/** 5xx: the server failed or is away; the retries have been used up. */
export class InternalServerError extends APIError {}
/** No answer came: the server cannot be reached, or the connection broke. */
export class APIConnectionError extends APIError {}
/** No answer came in time. */
export class APIConnectionTimeoutError extends APIConnectionError {}
/** The request was ended by its `signal`. */
export class APIUserAbortError extends APIError {}

const KINDS: Record<number, new (message: string, answer: ErrorAnswer) => APIError> = {
  400: BadRequestError,
  401: AuthenticationError,
  403: PermissionDeniedError,
  404: NotFoundError,
  409: ConflictError,
  422: UnprocessableEntityError,
  429: RateLimitError,
};
