import { APIError, APIUserAbortError } from "./errors.js";
import type { HermEvent } from "./events.js";
import { isTransient, jittered } from "./retry.js";
import { EventStream } from "./stream.js";
import { path, type RequestOptions, type Transport } from "./transport.js";
import type { MessageParams, Run, SentMessage, Thread } from "./types.js";
import { RunCancelledError, RunFailedError, WaitTimeoutError } from "./wait-errors.js";
import { DEFAULT_WAIT_MS, type WaitOptions } from "./wait-until-ready.js";

export interface SendAndWaitOptions extends WaitOptions {
  /**
   * Called with each event of the run, in order. If it returns a promise, the promise is awaited before the next event.
   */
  onEvent?: (event: HermEvent) => void | Promise<void>;
  /** The idempotency key of the request that sends the message. Defaults to a unique key. */
  idempotencyKey?: string;
}

/** A completed run, with the agent's last message as `text`. */
export type FinishedRun = Run & { text: string };

/** Wait in milliseconds before repeating a request whose retries have all failed. */
const POLL_AGAIN_MS = 1_000;

const FINAL_STATUSES: readonly string[] = ["completed", "error", "cancelled"];

export async function sendAndWait(
  transport: Transport,
  deploymentId: string,
  params: MessageParams,
  { timeout = DEFAULT_WAIT_MS, signal, onEvent, idempotencyKey }: SendAndWaitOptions,
): Promise<FinishedRun> {
  const ending = new AbortController();
  const end = () => ending.abort();
  if (signal?.aborted) end();
  signal?.addEventListener("abort", end);
  const inTime = transport.runtime.after(timeout, end);
  const options: RequestOptions = { signal: ending.signal };
  let runId: string | undefined;
  try {
    // Opens the stream before sending the message, so that no event of the run is missed.
    const stream = await EventStream.connect(
      transport,
      path`/v1/deployments/${deploymentId}/events`,
      {},
      { signal: ending.signal },
    );
    try {
      const sent = await transport.json<SentMessage>({
        method: "POST",
        path: path`/v1/deployments/${deploymentId}/messages`,
        json: params,
        options: { ...options, ...(idempotencyKey !== undefined && { idempotencyKey }) },
      });
      runId = sent.run_id;
      return await follow(
        stream,
        new WaitedRun(transport, deploymentId, sent.run_id, sent.thread_id, options),
        onEvent,
      );
    } finally {
      stream.close();
    }
  } catch (error) {
    const wasEnded = error instanceof APIUserAbortError && !signal?.aborted;
    if (!wasEnded) throw error;
    throw new WaitTimeoutError(
      `The run did not end within ${timeout} ms. The run continues on the server.`,
      runId,
    );
  } finally {
    inTime();
    signal?.removeEventListener("abort", end);
  }
}

/** Reads the event stream until the run has ended. Returns the completed run, or throws the run's error. */
async function follow(
  stream: EventStream,
  run: WaitedRun,
  onEvent: SendAndWaitOptions["onEvent"],
): Promise<FinishedRun> {
  let text: string | undefined;
  for await (const event of stream) {
    // A `gap` event means that events are missing. The end of the run may be one of them, so request the run's status.
    if (event.type === "gap") {
      text = undefined;
      if ((await run.get()).ended) break;
    }
    if (!("run_id" in event) || event.run_id !== run.runId) continue;
    if (event.type === "message" && event.role === "agent") text = event.content;
    await onEvent?.(event);
    if (event.type === "run_status" && FINAL_STATUSES.includes(event.status)) return run.finish(text);
  }
  // The event for the end of the run was not received: a `gap` event replaced it, the deployment was deleted, or the
  // wait was aborted. `finish` requests the run's status, and throws an error unless the run is completed.
  return run.finish(text);
}

/** The run for which `sendAndWait` waits. */
class WaitedRun {
  constructor(
    readonly transport: Transport,
    readonly deploymentId: string,
    readonly runId: string,
    readonly threadId: string,
    readonly options: RequestOptions,
  ) {}

  async get(): Promise<{ run: Run; ended: boolean }> {
    const run = await this.#get<Run>(path`/v1/deployments/${this.deploymentId}/runs/${this.runId}`);
    return { run, ended: FINAL_STATUSES.includes(run.status) };
  }

  async finish(text: string | undefined): Promise<FinishedRun> {
    const { run } = await this.get();
    if (run.status === "cancelled") throw new RunCancelledError(run);
    if (run.status !== "completed") throw new RunFailedError(run);
    return { ...run, text: text ?? (await this.#lastMessage()) };
  }

  /** Returns the content of the agent's last message of this run, read from the thread. */
  async #lastMessage(): Promise<string> {
    const thread = await this.#get<Thread>(
      path`/v1/deployments/${this.deploymentId}/threads/${this.threadId}`,
    );
    const messages = thread.messages.filter(
      message => message.role === "agent" && message.run_id === this.runId,
    );
    return messages.at(-1)?.content ?? "";
  }

  /**
   * Sends a GET request and repeats it while the server is unreachable, because the wait must survive a restart of the
   * server just as the event stream does.
   */
  async #get<T>(from: string): Promise<T> {
    for (;;) {
      try {
        return await this.transport.json<T>({ method: "GET", path: from, options: this.options });
      } catch (error) {
        if (!(error instanceof APIError) || !isTransient(error)) throw error;
      }
      await this.transport.runtime.sleep(
        jittered(POLL_AGAIN_MS, this.transport.runtime),
        this.options.signal,
      );
    }
  }
}
