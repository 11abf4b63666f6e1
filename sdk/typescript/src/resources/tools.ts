import { paged, type PagePromise } from "../page.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type { Tool, ToolUpdateParams } from "../types.js";

/** The tools of an agent and their permissions. */
export class Tools {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Lists a deployment's tools: the built-in tools and the tools of its MCP servers. */
  list(deploymentId: string, options?: RequestOptions): PagePromise<Tool> {
    return paged(cursor =>
      this.#transport.json({
        method: "GET",
        path: path`/v1/deployments/${deploymentId}/tools`,
        query: { cursor },
        options,
      }),
    );
  }

  /** Enables or disables a tool, or changes its permission. */
  update(
    deploymentId: string,
    name: string,
    params: ToolUpdateParams,
    options?: RequestOptions,
  ): Promise<Tool> {
    return this.#transport.json({
      method: "PATCH",
      path: path`/v1/deployments/${deploymentId}/tools/${name}`,
      json: params,
      options,
    });
  }
}
