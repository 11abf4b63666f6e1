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

/** Where a server listens that was told nothing else. */
const DEFAULT_BASE_URL = "http://127.0.0.1:4376";
/** Milliseconds that one attempt of a request may take. */
const DEFAULT_TIMEOUT_MS = 60_000;
/** How often a request is made again: with the waits between, a server may be away for some seconds. */
const DEFAULT_MAX_RETRIES = 4;
/** What a key begins with that must not be given to browsers. */
const SECRET_KEY_PREFIX = "herm_sk_";

export interface ClientOptions {
  /** The API key, or a browser's token; else the variable `HERM_API_KEY`, else `PRISM_API_KEY`. */
  apiKey?: string | undefined;
  /** Where the server is; else the variable `HERM_BASE_URL`, else `http://127.0.0.1:4376`. */
  baseURL?: string | undefined;
  /** Milliseconds that one attempt of a request may take; a minute when left out. */
  timeout?: number | undefined;
  /** How often a request is made again after a fault that passes; 4 times when left out. */
  maxRetries?: number | undefined;
  /** Instead of the global `fetch`. */
  fetch?: typeof fetch | undefined;
  /** Sent with every request. */
  defaultHeaders?: Record<string, string> | undefined;
  /** Told of requests and retries, never of keys or bodies; `console` will do. */
  logger?: Logger | undefined;
  /** Allows a secret key in a browser's page, where every visitor can read it. A token is what belongs there. */
  dangerouslyAllowBrowser?: boolean | undefined;
}

/**
 * A client of a Herm server.
 *
 * ```ts
 * import Herm from "herm";
 *
 * const client = new Herm(); // the key from HERM_API_KEY
 * ```
 */
export class Herm {
  /** Agents, what is said to them and what they do. */
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
  /** Where the server is. */
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

  /** `runtime` is for tests: they choose time and randomness. */
  constructor(options: ClientOptions = {}, runtime: Runtime = systemRuntime) {
    this.baseURL = baseURL(options.baseURL ?? variable("HERM_BASE_URL") ?? DEFAULT_BASE_URL);
    const transport = new Transport(
      {
        apiKey: apiKey(options),
        baseURL: this.baseURL,
        timeout: options.timeout ?? DEFAULT_TIMEOUT_MS,
        maxRetries: options.maxRetries ?? DEFAULT_MAX_RETRIES,
        // Called as a function of the global object: elsewhere browsers refuse it.
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
      "there is no API key: give apiKey, or set HERM_API_KEY; `herm keys create --name NAME` makes one on the server",
    );
  }
  // Said here without the key: `fetch` would quote it.
  if (!/^[\x21-\x7e]+$/.test(key))
    throw new HermError("apiKey holds blanks or other characters that no key has");
  if (key.startsWith(SECRET_KEY_PREFIX) && isBrowser() && !options.dangerouslyAllowBrowser) {
    throw new HermError(
      "a secret key in a page is readable by every visitor: make a token with client.tokens.create on your server and " +
        "give the page that; dangerouslyAllowBrowser: true allows the key all the same",
    );
  }
  return key;
}

function baseURL(text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new HermError("baseURL is not a URL; it should look like http://127.0.0.1:4376");
  }
  if (!/^https?:$/.test(url.protocol)) throw new HermError("baseURL must begin with http:// or https://");
  if (url.username || url.password || url.search || url.hash) {
    throw new HermError("baseURL must have no user, query or fragment; give the key as apiKey");
  }
  return url.origin + url.pathname.replace(/\/+$/, "");
}
