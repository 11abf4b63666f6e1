import { paged, type PagePromise } from "../page.js";
import { withLocalFiles } from "../skill-files.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type {
  DeletedDeployment,
  Deployment,
  DeploymentCreateParams,
  DeploymentItem,
  DeploymentStatus,
  DeploymentUpdateParams,
} from "../types.js";
import { waitUntilReady, type WaitOptions } from "../wait-until-ready.js";
import { Events } from "./events.js";
import { Messages } from "./messages.js";

export interface DeploymentListParams {
  customer_id?: string;
  status?: DeploymentStatus;
  /** Items of a page: 1 to 100, 20 when left out. */
  limit?: number;
  cursor?: string;
}

export interface DeploymentDeleteParams {
  /** Keeps the workspace as a snapshot for 30 days. */
  retain_filesystem?: boolean;
}

/** Agents: each is one customer's own. */
export class Deployments {
  readonly messages: Messages;
  readonly events: Events;
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
    this.events = new Events(transport);
    this.messages = new Messages(transport);
  }

  /**
   * Makes an agent for a customer. Of a `file` skill whose path is on this machine's disk, the text is sent along and
   * written there in the workspace.
   */
  async create(params: DeploymentCreateParams, options?: RequestOptions): Promise<Deployment> {
    return this.#transport.json({
      method: "POST",
      path: "/v1/deployments",
      json: await withLocalFiles(params),
      options,
    });
  }

  /** A deployment with all its settings. */
  get(deploymentId: string, options?: RequestOptions): Promise<Deployment> {
    return this.#transport.json({ method: "GET", path: path`/v1/deployments/${deploymentId}`, options });
  }

  /** The account's deployments, newest first. */
  list(params: DeploymentListParams = {}, options?: RequestOptions): PagePromise<DeploymentItem> {
    return paged(cursor =>
      this.#transport.json({
        method: "GET",
        path: "/v1/deployments",
        query: { ...params, cursor: cursor ?? params.cursor },
        options,
      }),
    );
  }

  /** Changes settings, from the agent's next run on. Memory, files and history stay. */
  async update(
    deploymentId: string,
    params: DeploymentUpdateParams,
    options?: RequestOptions,
  ): Promise<Deployment> {
    return this.#transport.json({
      method: "PATCH",
      path: path`/v1/deployments/${deploymentId}`,
      json: await withLocalFiles(params),
      options,
    });
  }

  /** Ends the agent and destroys all it has, at once: a stream of its events gets `deployment_status: deleted`. */
  delete(
    deploymentId: string,
    params: DeploymentDeleteParams = {},
    options?: RequestOptions,
  ): Promise<DeletedDeployment> {
    // A retry that finds it gone cannot know the snapshot; then the caller is told that it was not found.
    const whenGone = params.retain_filesystem
      ? undefined
      : { deployment_id: deploymentId, status: "deleted" };
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/deployments/${deploymentId}`,
      query: { retain_filesystem: params.retain_filesystem },
      options,
      whenGone,
    });
  }

  /** Provisions a deployment in `error` again. */
  retry(deploymentId: string, options?: RequestOptions): Promise<Deployment> {
    return this.#transport.json({
      method: "POST",
      path: path`/v1/deployments/${deploymentId}/retry`,
      options,
    });
  }

  /**
   * Waits while a deployment is `provisioning`.
   *
   * @throws {@link DeploymentFailedError} if its status is then `error`, {@link WaitTimeoutError} if it takes too long.
   */
  waitUntilReady(deploymentId: string, options: WaitOptions = {}): Promise<Deployment> {
    const { signal } = options;
    return waitUntilReady(
      deploymentId,
      () => this.get(deploymentId, { signal }),
      this.#transport.runtime,
      options,
    );
  }
}
