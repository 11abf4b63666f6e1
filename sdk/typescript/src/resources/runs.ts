import { paged, type PagePromise } from "../page.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type { Run, RunStatus, RunStep } from "../types.js";

export interface RunListParams {
  thread_id?: string;
  status?: RunStatus;
  /** Maximum number of items per page, 1 to 100. Defaults to 20. */
  limit?: number;
  cursor?: string;
}

export interface RunStepsParams {
  /** Maximum number of items per page, 1 to 100. Defaults to 20. */
  limit?: number;
  cursor?: string;
}

/** Runs. A run is the work that a message starts, until it completes, fails or is cancelled. */
export class Runs {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Lists a deployment's runs, newest first. */
  list(deploymentId: string, params: RunListParams = {}, options?: RequestOptions): PagePromise<Run> {
    return paged(cursor =>
      this.#transport.json({
        method: "GET",
        path: path`/v1/deployments/${deploymentId}/runs`,
        query: { ...params, cursor: cursor ?? params.cursor },
        options,
      }),
    );
  }

  /** Returns a run with its status and usage, and with its error if it failed. */
  get(deploymentId: string, runId: string, options?: RequestOptions): Promise<Run> {
    return this.#transport.json({
      method: "GET",
      path: path`/v1/deployments/${deploymentId}/runs/${runId}`,
      options,
    });
  }

  /** Lists the model calls and tool calls of a run, in order. */
  steps(
    deploymentId: string,
    runId: string,
    params: RunStepsParams = {},
    options?: RequestOptions,
  ): PagePromise<RunStep> {
    return paged(cursor =>
      this.#transport.json({
        method: "GET",
        path: path`/v1/deployments/${deploymentId}/runs/${runId}/steps`,
        query: { ...params, cursor: cursor ?? params.cursor },
        options,
      }),
    );
  }

  /** Requests the cancellation of a run and returns immediately. The run ends shortly afterwards. */
  cancel(deploymentId: string, runId: string, options?: RequestOptions): Promise<Run> {
    return this.#transport.json({
      method: "POST",
      path: path`/v1/deployments/${deploymentId}/runs/${runId}/cancel`,
      options,
    });
  }
}
