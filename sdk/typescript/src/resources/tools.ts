import { paged, type PagePromise } from "../page.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type { Tool, ToolUpdateParams } from "../types.js";

/** What an agent may do, and whether it must ask first. */
export class Tools {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** A deployment's tools: those built in and those of its MCP servers. */
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

  /** Switches a tool on or off, or says whether the agent must ask before it uses it. */
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
