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
  /** Selects only pending or only resolved requests. Defaults to all. */
  status?: SteeringStatus;
  /** Maximum number of items per page, 1 to 100. Defaults to 20. */
  limit?: number;
  cursor?: string;
}

export interface SteeringAnswerParams {
  /** The decision: `approve` or `deny` for an approval request, `answer` or `deny` for a question. */
  decision: SteeringDecision;
  /** A text for the agent: the answer to a question, the reason for a denial, or a note on an approval. */
  message?: string;
  /** Arguments that replace those of the approved tool call. */
  arguments?: Record<string, unknown>;
  /**
   * The calls that an approval covers: only this tool call (`once`), also identical calls in the same run (`run`), or
   * also identical calls in all later runs (`always`).
   */
  remember?: SteeringRemember;
}

export interface ApprovalListParams {
  /** Maximum number of items per page, 1 to 100. Defaults to 20. */
  limit?: number;
  cursor?: string;
}

/** Steering requests, with which a run asks a person to approve a tool call or to answer a question. */
export class Steering {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Lists the steering requests of all deployments, newest first. */
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

  /** Lists the steering requests of a deployment, newest first. */
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

  /** Returns a steering request. */
  get(deploymentId: string, steeringId: string, options?: RequestOptions): Promise<SteeringRequest> {
    return this.#transport.json({
      method: "GET",
      path: path`/v1/deployments/${deploymentId}/steering/${steeringId}`,
      options,
    });
  }

  /**
   * Answers a steering request, so that its run continues. The first answer is final: a later answer that differs from
   * it throws `ConflictError`.
   */
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

/**
 * Stored approvals of a deployment: tool calls that were approved with `remember: "always"` and can be repeated without
 * another approval.
 */
export class Approvals {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Lists the stored approvals of a deployment, newest first. */
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

  /** Withdraws a stored approval. The tool call then needs an approval again. */
  delete(deploymentId: string, approvalId: string, options?: RequestOptions): Promise<{ withdrawn: number }> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/deployments/${deploymentId}/approvals/${approvalId}`,
      options,
      whenDeleted: { withdrawn: 1 },
    });
  }

  /** Withdraws all stored approvals of a deployment. */
  deleteAll(deploymentId: string, options?: RequestOptions): Promise<{ withdrawn: number }> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/deployments/${deploymentId}/approvals`,
      options,
    });
  }
}
