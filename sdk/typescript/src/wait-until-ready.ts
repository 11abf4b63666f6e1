import { DeploymentFailedError, WaitTimeoutError } from "./wait-errors.js";
import { APIUserAbortError } from "./errors.js";
import { jittered } from "./retry.js";
import type { Runtime } from "./runtime.js";
import type { Deployment } from "./types.js";

/** Longest wait unless the caller says otherwise. */
export const DEFAULT_WAIT_MS = 10 * 60_000;
/** Between the first two looks; then twice as long each time. */
const FIRST_LOOK_MS = 250;
/** Longest time between two looks. */
const MAX_LOOK_MS = 2_000;

export interface WaitOptions {
  /** Milliseconds to wait at most; ten minutes when left out. */
  timeout?: number;
  /** Ends the waiting. */
  signal?: AbortSignal | undefined;
}

export async function waitUntilReady(
  deploymentId: string,
  get: () => Promise<Deployment>,
  runtime: Runtime,
  { timeout = DEFAULT_WAIT_MS, signal }: WaitOptions,
): Promise<Deployment> {
  const end = runtime.now() + timeout;
  for (let look = FIRST_LOOK_MS; ; look = Math.min(MAX_LOOK_MS, 2 * look)) {
    const deployment = await get();
    if (deployment.status === "ready") return deployment;
    if (deployment.status === "error") throw new DeploymentFailedError(deployment);
    const left = end - runtime.now();
    if (left <= 0)
      throw new WaitTimeoutError(`deployment ${deploymentId} was not ready within ${timeout} ms`);
    await runtime.sleep(Math.min(left, jittered(look, runtime)), signal);
    if (signal?.aborted) throw new APIUserAbortError("the waiting was aborted");
  }
}
