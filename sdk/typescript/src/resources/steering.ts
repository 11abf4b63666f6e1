import { paged, type PagePromise } from "../page.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type {
  Approval,
  SteeringDecision,
  SteeringRemember,
  SteeringRequest,
  SteeringStatus,
} from "../types.js";

export interface SteeringListParams {
  /** What waits for an answer, or what no longer does. */
  status?: SteeringStatus;
  /** Items of a page: 1 to 100, 20 when left out. */
  limit?: number;
  cursor?: string;
}

export interface SteeringAnswerParams {
  /** `approve` or `deny` an approval; `answer` or `deny` a question. */
  decision: SteeringDecision;
  /** The answer to a question; the reason of a denial; what goes with an approval. The agent reads it. */
  message?: string;
  /** What the call is made with, in place of what the agent wrote. */
  arguments?: Record<string, unknown>;
  /** How far an approval reaches: this call (`once`), the same call in this `run`, or `always`. */
  remember?: SteeringRemember;
}

export interface ApprovalListParams {
  /** Items of a page: 1 to 100, 20 when left out. */
  limit?: number;
  cursor?: string;
}

/** What runs ask people: approvals and questions. */
export class Steering {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** What the runs of all deployments ask, newest first. */
  listAll(params: SteeringListParams = {}, options?: RequestOptions): PagePromise<SteeringRequest> {
    return paged(cursor =>
      this.#transport.json({
        method: "GET",
        path: path`/v1/steering`,
        query: { ...params, cursor: cursor ?? params.cursor },
        options,
      }),
    );
  }

  /** What a deployment's runs ask, newest first. */
  list(
    deploymentId: string,
    params: SteeringListParams = {},
    options?: RequestOptions,
  ): PagePromise<SteeringRequest> {
    return paged(cursor =>
      this.#transport.json({
        method: "GET",
        path: path`/v1/deployments/${deploymentId}/steering`,
        query: { ...params, cursor: cursor ?? params.cursor },
        options,
      }),
    );
  }

  get(deploymentId: string, steeringId: string, options?: RequestOptions): Promise<SteeringRequest> {
    return this.#transport.json({
      method: "GET",
      path: path`/v1/deployments/${deploymentId}/steering/${steeringId}`,
      options,
    });
  }

  /** Answers; the run goes on. The first answer stands: another one is refused with `ConflictError`. */
  answer(
    deploymentId: string,
    steeringId: string,
    params: SteeringAnswerParams,
    options?: RequestOptions,
  ): Promise<SteeringRequest> {
    return this.#transport.json({
      method: "POST",
      path: path`/v1/deployments/${deploymentId}/steering/${steeringId}`,
      json: params,
      options,
    });
  }
}

/** Calls that need not be asked about again, as they were approved with `remember: "always"`. */
export class Approvals {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** A deployment's approvals, newest first. */
  list(
    deploymentId: string,
    params: ApprovalListParams = {},
    options?: RequestOptions,
  ): PagePromise<Approval> {
    return paged(cursor =>
      this.#transport.json({
        method: "GET",
        path: path`/v1/deployments/${deploymentId}/approvals`,
        query: { ...params, cursor: cursor ?? params.cursor },
        options,
      }),
    );
  }

  /** Withdraws one: such a call is asked about again. */
  delete(deploymentId: string, approvalId: string, options?: RequestOptions): Promise<{ withdrawn: number }> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/deployments/${deploymentId}/approvals/${approvalId}`,
      options,
      whenGone: { withdrawn: 1 },
    });
  }

  /** Withdraws all of them. */
  deleteAll(deploymentId: string, options?: RequestOptions): Promise<{ withdrawn: number }> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/deployments/${deploymentId}/approvals`,
      options,
    });
  }
}
