import { paged, type PagePromise } from "../page.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type { DeletedMcpServer, McpServer, McpServerParams, McpServerUpdateParams } from "../types.js";

/** The MCP servers of a deployment. The agent can use their tools. */
export class McpServers {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Adds an MCP server to a deployment. The MCP server need not be reachable yet. */
  create(deploymentId: string, params: McpServerParams, options?: RequestOptions): Promise<McpServer> {
    return this.#transport.json({
      method: "POST",
      path: path`/v1/deployments/${deploymentId}/mcp_servers`,
      json: params,
      options,
    });
  }

  /** Lists a deployment's MCP servers, each with its connection state, last error and known tools. */
  list(deploymentId: string, options?: RequestOptions): PagePromise<McpServer> {
    return paged(cursor =>
      this.#transport.json({
        method: "GET",
        path: path`/v1/deployments/${deploymentId}/mcp_servers`,
        query: { cursor },
        options,
      }),
    );
  }

  /** Changes the settings of an MCP server. */
  update(
    deploymentId: string,
    name: string,
    params: McpServerUpdateParams,
    options?: RequestOptions,
  ): Promise<McpServer> {
    return this.#transport.json({
      method: "PATCH",
      path: path`/v1/deployments/${deploymentId}/mcp_servers/${name}`,
      json: params,
      options,
    });
  }

  /** Removes an MCP server and its tools from a deployment. */
  delete(deploymentId: string, name: string, options?: RequestOptions): Promise<DeletedMcpServer> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/deployments/${deploymentId}/mcp_servers/${name}`,
      options,
      whenDeleted: { name, status: "deleted" },
    });
  }
}
