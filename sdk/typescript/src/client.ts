import { isBrowser, variable } from "./environment.js";
import * as errors from "./errors.js";
import { HermError } from "./errors.js";
import { Keys, Models, Secrets, Tokens } from "./resources/account.js";
import { Deployments } from "./resources/deployments.js";
import { Files } from "./resources/files.js";
import { McpServers } from "./resources/mcp-servers.js";
import { Runs } from "./resources/runs.js";
import { Skills } from "./resources/skills.js";
import { Approvals, Steering } from "./resources/steering.js";
import { Snapshots } from "./resources/snapshots.js";
import { Threads } from "./resources/threads.js";
import { Tools } from "./resources/tools.js";
import { type Runtime, systemRuntime } from "./runtime.js";
import { type Logger, Transport } from "./transport.js";
import * as waitErrors from "./wait-errors.js";

/** Default URL of the Herm server. */
const DEFAULT_BASE_URL = "http://127.0.0.1:4376";
/** Default timeout for each attempt of a request, in milliseconds. */
const DEFAULT_TIMEOUT_MS = 60_000;
/**
 * Default maximum number of retries of a request. With the waits between attempts, this is enough to bridge a server
 * outage of a few seconds.
 */
const DEFAULT_MAX_RETRIES = 4;
/** Prefix of secret API keys, which must not be used in browsers. Browser tokens have another prefix. */
const SECRET_KEY_PREFIX = "herm_sk_";

export interface ClientOptions {
  /** The API key or browser token. Defaults to the environment variable `HERM_API_KEY`, then `PRISM_API_KEY`. */
  apiKey?: string | undefined;
  /** The URL of the Herm server. Defaults to the environment variable `HERM_BASE_URL`, then `http://127.0.0.1:4376`. */
  baseURL?: string | undefined;
  /** Timeout for each attempt of a request, in milliseconds. Defaults to 60,000. */
  timeout?: number | undefined;
  /** Maximum number of retries of a request after transient errors. Defaults to 4. */
  maxRetries?: number | undefined;
  /** The function that sends HTTP requests. Defaults to the global `fetch`. */
  fetch?: typeof fetch | undefined;
  /** Headers that are sent with every request. */
  defaultHeaders?: Record<string, string> | undefined;
  /**
   * Receives log messages about requests and retries. They contain no keys and no bodies. `console` can be used as a
   * logger.
   */
  logger?: Logger | undefined;
  /**
   * Allows a secret key in a browser, although every visitor of the page can then read the key. Prefer a browser token.
   */
  dangerouslyAllowBrowser?: boolean | undefined;
}

/**
 * Client for a Herm server.
 *
 * ```ts
 * import Herm from "herm";
 *
 * const client = new Herm(); // reads the API key from HERM_API_KEY
 * ```
 */
export class Herm {
  /** Deployments, their messages (`deployments.messages`) and their events (`deployments.events`). */
  readonly deployments: Deployments;
  readonly threads: Threads;
  readonly runs: Runs;
  readonly files: Files;
  readonly skills: Skills;
  readonly tools: Tools;
  readonly mcpServers: McpServers;
  readonly snapshots: Snapshots;
  readonly steering: Steering;
  readonly approvals: Approvals;
  readonly secrets: Secrets;
  readonly keys: Keys;
  readonly tokens: Tokens;
  readonly models: Models;
  /** The URL of the server, without a trailing slash. */
  readonly baseURL: string;

  static readonly HermError = errors.HermError;
  static readonly APIError = errors.APIError;
  static readonly BadRequestError = errors.BadRequestError;
  static readonly AuthenticationError = errors.AuthenticationError;
  static readonly PermissionDeniedError = errors.PermissionDeniedError;
  static readonly NotFoundError = errors.NotFoundError;
  static readonly ConflictError = errors.ConflictError;
  static readonly UnprocessableEntityError = errors.UnprocessableEntityError;
  static readonly RateLimitError = errors.RateLimitError;
  static readonly InternalServerError = errors.InternalServerError;
  static readonly APIConnectionError = errors.APIConnectionError;
  static readonly APIConnectionTimeoutError = errors.APIConnectionTimeoutError;
  static readonly APIUserAbortError = errors.APIUserAbortError;
  static readonly RunFailedError = waitErrors.RunFailedError;
  static readonly RunCancelledError = waitErrors.RunCancelledError;
  static readonly DeploymentFailedError = waitErrors.DeploymentFailedError;
  static readonly WaitTimeoutError = waitErrors.WaitTimeoutError;

  /** Creates a client. `runtime` is for tests, which use it to control time and randomness. */
  constructor(options: ClientOptions = {}, runtime: Runtime = systemRuntime) {
    this.baseURL = baseURL(options.baseURL ?? variable("HERM_BASE_URL") ?? DEFAULT_BASE_URL);
    const transport = new Transport(
      {
        apiKey: apiKey(options),
        baseURL: this.baseURL,
        timeout: options.timeout ?? DEFAULT_TIMEOUT_MS,
        maxRetries: options.maxRetries ?? DEFAULT_MAX_RETRIES,
        // Calls `fetch` on the global object, because browsers throw an error if it is called on any other object.
        fetch: options.fetch ?? ((input, init) => globalThis.fetch(input, init)),
        defaultHeaders: options.defaultHeaders ?? {},
        logger: options.logger,
      },
      runtime,
    );
    this.deployments = new Deployments(transport);
    this.threads = new Threads(transport);
    this.runs = new Runs(transport);
    this.files = new Files(transport);
    this.skills = new Skills(transport);
    this.tools = new Tools(transport);
    this.mcpServers = new McpServers(transport);
    this.snapshots = new Snapshots(transport);
    this.steering = new Steering(transport);
    this.approvals = new Approvals(transport);
    this.secrets = new Secrets(transport);
    this.keys = new Keys(transport);
    this.tokens = new Tokens(transport);
    this.models = new Models(transport);
  }
}

function apiKey(options: ClientOptions): string {
  const key = (options.apiKey ?? variable("HERM_API_KEY") ?? variable("PRISM_API_KEY"))?.trim();
  if (!key) {
    throw new HermError(
      "Missing API key: pass apiKey or set HERM_API_KEY. `herm keys create --name NAME` creates a key on the server.",
    );
  }
  // Checks the key before any request, because the error that `fetch` throws for an invalid header contains the key.
  if (!/^[\x21-\x7e]+$/.test(key))
    throw new HermError("apiKey contains white space or other characters that are not allowed in a key.");
  if (key.startsWith(SECRET_KEY_PREFIX) && isBrowser() && !options.dangerouslyAllowBrowser) {
    throw new HermError(
      "A secret key in a browser is readable by every visitor of the page. Create a token with client.tokens.create on " +
        "your server and pass that token to the page, or set dangerouslyAllowBrowser: true to use the key anyway.",
    );
  }
  return key;
}

function baseURL(text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new HermError("baseURL is not a URL. Example: http://127.0.0.1:4376");
  }
  if (!/^https?:$/.test(url.protocol)) throw new HermError("baseURL must begin with http:// or https://.");
  if (url.username || url.password || url.search || url.hash) {
    throw new HermError("baseURL must not contain a user, query or fragment. Pass the key as apiKey.");
  }
  return url.origin + url.pathname.replace(/\/+$/, "");
}
