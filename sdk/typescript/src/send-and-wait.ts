import { APIError, APIUserAbortError } from "./errors.js";
import type { HermEvent } from "./events.js";
import { isTransient, jittered } from "./retry.js";
import { EventStream } from "./stream.js";
import { path, type RequestOptions, type Transport } from "./transport.js";
import type { MessageParams, Run, SentMessage, Thread } from "./types.js";
import { RunCancelledError, RunFailedError, WaitTimeoutError } from "./wait-errors.js";
import { DEFAULT_WAIT_MS, type WaitOptions } from "./wait-until-ready.js";

export interface SendAndWaitOptions extends WaitOptions {
  /** Told each event of the run, in order; awaited. */
  onEvent?: (event: HermEvent) => void | Promise<void>;
  /** Of the message; instead of the one that is made for it. */
  idempotencyKey?: string;
}

/** A completed run, and the last thing the agent said in it. */
export type FinishedRun = Run & { text: string };

/** Between two rounds of retries while the server is away. */
const ASK_AGAIN_MS = 1_000;

const ENDS: readonly string[] = ["completed", "error", "cancelled"];

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
    // Connected before anything is sent, so that nothing of the run is missed.
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
        new Following(transport, deploymentId, sent.run_id, sent.thread_id, options),
        onEvent,
      );
    } finally {
      stream.close();
    }
  } catch (error) {
    const wasEnded = error instanceof APIUserAbortError && !signal?.aborted;
    if (!wasEnded) throw error;
    throw new WaitTimeoutError(`the run was not done within ${timeout} ms; it goes on`, runId);
  } finally {
    inTime();
    signal?.removeEventListener("abort", end);
  }
}

/** Reads the stream until the run has ended. */
async function follow(
  stream: EventStream,
  run: Following,
  onEvent: SendAndWaitOptions["onEvent"],
): Promise<FinishedRun> {
  let text: string | undefined;
  for await (const event of stream) {
    // What is no longer in the log cannot be waited for.
    if (event.type === "gap") {
      text = undefined;
      if ((await run.get()).ended) break;
    }
    if (!("run_id" in event) || event.run_id !== run.runId) continue;
    if (event.type === "message" && event.role === "agent") text = event.content;
    await onEvent?.(event);
    if (event.type === "run_status" && ENDS.includes(event.status)) return run.finish(text);
  }
  // The stream is over without the run's end: the deployment is gone, or the waiting was ended.
  return run.finish(text);
}

/** The run that is waited for. */
class Following {
  constructor(
    readonly transport: Transport,
    readonly deploymentId: string,
    readonly runId: string,
    readonly threadId: string,
    readonly options: RequestOptions,
  ) {}

  async get(): Promise<{ run: Run; ended: boolean }> {
    const run = await this.#ask<Run>(path`/v1/deployments/${this.deploymentId}/runs/${this.runId}`);
    return { run, ended: ENDS.includes(run.status) };
  }

  async finish(said: string | undefined): Promise<FinishedRun> {
    const { run } = await this.get();
    if (run.status === "cancelled") throw new RunCancelledError(run);
    if (run.status !== "completed") throw new RunFailedError(run);
    return { ...run, text: said ?? (await this.#lastSaid()) };
  }

  /** What the thread has as the agent's last message of the run. */
  async #lastSaid(): Promise<string> {
    const thread = await this.#ask<Thread>(
      path`/v1/deployments/${this.deploymentId}/threads/${this.threadId}`,
    );
    const said = thread.messages.filter(message => message.role === "agent" && message.run_id === this.runId);
    return said.at(-1)?.content ?? "";
  }

  /** Asks until there is an answer: a server that restarts is waited for as the stream does. */
  async #ask<T>(from: string): Promise<T> {
    for (;;) {
      try {
        return await this.transport.json<T>({ method: "GET", path: from, options: this.options });
      } catch (error) {
        if (!(error instanceof APIError) || !isTransient(error)) throw error;
      }
      await this.transport.runtime.sleep(jittered(ASK_AGAIN_MS, this.transport.runtime), this.options.signal);
    }
  }
}
