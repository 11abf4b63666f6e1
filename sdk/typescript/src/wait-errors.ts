import { HermError } from "./errors.js";
import type { Deployment, Run } from "./types.js";

/** A run ended, and not well. {@link RunCancelledError} is the one that was cancelled. */
export class RunFailedError extends HermError {
  /** The run as it ended. */
  readonly run: Run;
  /** Why, as a stable code such as `provider_not_configured`. */
  readonly code: string | undefined;

  constructor(run: Run) {
    super(
      run.error
        ? `the run failed: ${run.error.message} (${run.error.code})`
        : `the run ended as ${run.status}`,
    );
    this.run = run;
    this.code = run.error?.code;
  }
}

/** A run was cancelled before it was done. */
export class RunCancelledError extends RunFailedError {}

/** A deployment could not be provisioned; `deployments.retry` tries again. */
export class DeploymentFailedError extends HermError {
  readonly deployment: Deployment;

  constructor(deployment: Deployment) {
    super(
      `deployment ${deployment.deployment_id} is not ready: ${deployment.error?.message ?? "no reason given"}`,
    );
    this.deployment = deployment;
  }
}

/** What was waited for did not come in time. It goes on without the one who waited. */
export class WaitTimeoutError extends HermError {
  /** The run that was waited for. */
  readonly runId: string | undefined;

  constructor(message: string, runId?: string) {
    super(message);
    this.runId = runId;
  }
}
