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
  /** Maximum number of items per page, 1 to 100. Defaults to 20. */
  limit?: number;
  cursor?: string;
}

export interface DeploymentDeleteParams {
  /** If true, the files of the workspace are retained as a snapshot, which is stored for 30 days. */
  retain_filesystem?: boolean;
}

/** Deployments. Each is an agent dedicated to one customer. */
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
   * Creates a deployment: an agent for one customer. If the path of a `file` skill exists on this machine, the file's
   * text is sent with the request, and the server writes it to the same path in the workspace.
   */
  async create(params: DeploymentCreateParams, options?: RequestOptions): Promise<Deployment> {
    return this.#transport.json({
      method: "POST",
      path: "/v1/deployments",
      json: await withLocalFiles(params),
      options,
    });
  }

  /** Returns a deployment with all its settings. */
  get(deploymentId: string, options?: RequestOptions): Promise<Deployment> {
    return this.#transport.json({ method: "GET", path: path`/v1/deployments/${deploymentId}`, options });
  }

  /** Lists the account's deployments, newest first. */
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

  /**
   * Changes the deployment's settings. The changes take effect with the agent's next run. Memory, files and history
   * stay unchanged.
   */
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

  /**
   * Deletes a deployment with its threads, events and files. Its open event streams end after the event
   * `deployment_status` with status `deleted`.
   */
  delete(
    deploymentId: string,
    params: DeploymentDeleteParams = {},
    options?: RequestOptions,
  ): Promise<DeletedDeployment> {
    // A retry that finds the deployment already deleted cannot return the snapshot's id, so it throws NotFoundError.
    const whenDeleted = params.retain_filesystem
      ? undefined
      : { deployment_id: deploymentId, status: "deleted" };
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/deployments/${deploymentId}`,
      query: { retain_filesystem: params.retain_filesystem },
      options,
      whenDeleted,
    });
  }

  /** Starts another attempt to provision a deployment whose status is `error`. */
  retry(deploymentId: string, options?: RequestOptions): Promise<Deployment> {
    return this.#transport.json({
      method: "POST",
      path: path`/v1/deployments/${deploymentId}/retry`,
      options,
    });
  }

  /**
   * Waits until the status of a deployment is no longer `provisioning`. Returns the ready deployment.
   *
   * @throws {@link DeploymentFailedError} if the status becomes `error`, {@link WaitTimeoutError} after the timeout.
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
