import { paged, type PagePromise } from "../page.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type { DeletedMcpServer, McpServer, McpServerParams, McpServerUpdateParams } from "../types.js";

/** The MCP servers whose tools an agent has. */
export class McpServers {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Gives the agent the tools of a server, which need not be reachable yet. */
  create(deploymentId: string, params: McpServerParams, options?: RequestOptions): Promise<McpServer> {
    return this.#transport.json({
      method: "POST",
      path: path`/v1/deployments/${deploymentId}/mcp_servers`,
      json: params,
      options,
    });
  }

  /** A deployment's servers: whether they can be reached, the last error, the tools seen. */
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

  /** Changes a server's settings. */
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

  /** Takes a server and its tools away. */
  delete(deploymentId: string, name: string, options?: RequestOptions): Promise<DeletedMcpServer> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/deployments/${deploymentId}/mcp_servers/${name}`,
      options,
      whenGone: { name, status: "deleted" },
    });
  }
}
