import { DeploymentFailedError, WaitTimeoutError } from "./wait-errors.js";
import { APIUserAbortError } from "./errors.js";
import { jittered } from "./retry.js";
import type { Runtime } from "./runtime.js";
import type { Deployment } from "./types.js";

/** Default timeout of `sendAndWait` and `waitUntilReady`, in milliseconds. */
export const DEFAULT_WAIT_MS = 10 * 60_000;
/** Wait between the first two status requests, in milliseconds. Each later wait is twice as long as the one before. */
const FIRST_POLL_MS = 250;
/** Maximum wait between two status requests, in milliseconds. */
const MAX_POLL_MS = 2_000;

export interface WaitOptions {
  /** Timeout of the whole wait, in milliseconds. Defaults to ten minutes. */
  timeout?: number;
  /** A signal that aborts the wait. The run or the provisioning continues on the server. */
  signal?: AbortSignal | undefined;
}

export async function waitUntilReady(
  deploymentId: string,
  get: () => Promise<Deployment>,
  runtime: Runtime,
  { timeout = DEFAULT_WAIT_MS, signal }: WaitOptions,
): Promise<Deployment> {
  const end = runtime.now() + timeout;
  for (let wait = FIRST_POLL_MS; ; wait = Math.min(MAX_POLL_MS, 2 * wait)) {
    const deployment = await get();
    if (deployment.status === "ready") return deployment;
    if (deployment.status === "error") throw new DeploymentFailedError(deployment);
    const left = end - runtime.now();
    if (left <= 0)
      throw new WaitTimeoutError(
        `Deployment ${deploymentId} was not ready within ${timeout} ms. Its provisioning continues on the server.`,
      );
    await runtime.sleep(Math.min(left, jittered(wait, runtime)), signal);
    if (signal?.aborted) throw new APIUserAbortError("The wait for the deployment was aborted.");
  }
}
