import { paged, type PagePromise } from "../page.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type { Run, RunStatus, RunStep } from "../types.js";

export interface RunListParams {
  thread_id?: string;
  status?: RunStatus;
  /** Items of a page: 1 to 100, 20 when left out. */
  limit?: number;
  cursor?: string;
}

export interface RunStepsParams {
  /** Items of a page: 1 to 100, 20 when left out. */
  limit?: number;
  cursor?: string;
}

/** Pieces of work: from a message to the agent's last word on it. */
export class Runs {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** A deployment's runs, newest first. */
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

  /** A run: its status, what it used, why it failed. */
  get(deploymentId: string, runId: string, options?: RequestOptions): Promise<Run> {
    return this.#transport.json({
      method: "GET",
      path: path`/v1/deployments/${deploymentId}/runs/${runId}`,
      options,
    });
  }

  /** Each model call and tool call of a run. */
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

  /** Asks a run to end; it does at the next moment at which it can. */
  cancel(deploymentId: string, runId: string, options?: RequestOptions): Promise<Run> {
    return this.#transport.json({
      method: "POST",
      path: path`/v1/deployments/${deploymentId}/runs/${runId}/cancel`,
      options,
    });
  }
}
