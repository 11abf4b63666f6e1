import { HermError } from "./errors.js";
import type { Deployment, Run } from "./types.js";

/** A run failed or was cancelled. For a cancelled run, the subclass {@link RunCancelledError} is thrown. */
export class RunFailedError extends HermError {
  /** The run in its final state. */
  readonly run: Run;
  /** The error code of the run, for example `provider_not_configured`. Its value is stable; the message may change. */
  readonly code: string | undefined;

  constructor(run: Run) {
    super(
      run.error
        ? `Run ${run.run_id} failed: ${run.error.message} (${run.error.code})`
        : `Run ${run.run_id} ended with status ${run.status}.`,
    );
    this.run = run;
    this.code = run.error?.code;
  }
}

/** A run was cancelled. */
export class RunCancelledError extends RunFailedError {}

/** The provisioning of a deployment failed. `deployments.retry` starts it again. */
export class DeploymentFailedError extends HermError {
  readonly deployment: Deployment;

  constructor(deployment: Deployment) {
    super(
      `The provisioning of deployment ${deployment.deployment_id} failed: ${deployment.error?.message ?? "unknown reason"}`,
    );
    this.deployment = deployment;
  }
}

/** The wait timed out. The run or the provisioning continues on the server. */
export class WaitTimeoutError extends HermError {
  /**
   * The id of the run. It is `undefined` if the wait timed out before the server accepted the message, or if the wait
   * was for provisioning.
   */
  readonly runId: string | undefined;

  constructor(message: string, runId?: string) {
    super(message);
    this.runId = runId;
  }
}
