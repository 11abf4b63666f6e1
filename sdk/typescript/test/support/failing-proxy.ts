import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/**
 * A failure that the proxy injects into one request: an error response, or a connection that breaks before or after the
 * server has received the request. `pass` injects no failure.
 */
export type Failure =
  | { kind: "respond"; status: number; headers?: Record<string, string> }
  | { kind: "break_before" }
  | { kind: "break_after" }
  | { kind: "pass" };

/**
 * Forwards requests to a server and injects failures. Each request takes the next entry of `failures`. If there is
 * none, the request passes unchanged.
 */
export class FailingProxy {
  readonly failures: Failure[] = [];
  readonly requests: { method: string; path: string; idempotencyKey: string | undefined; body: string }[] =
    [];
  readonly #server: Server;

  private constructor(readonly target: string) {
    this.#server = createServer((request, response) => void this.#handle(request, response));
  }

  static async start(target: string): Promise<FailingProxy> {
    const proxy = new FailingProxy(target);
    await new Promise<void>(resolve => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const body = Buffer.concat(parts);
    const method = request.method ?? "GET";
    const path = request.url ?? "/";
    const idempotencyKey = request.headers["idempotency-key"];
    this.requests.push({ method, path, idempotencyKey: idempotencyKey?.toString(), body: body.toString() });
    const failure = this.failures.shift() ?? { kind: "pass" };
    if (failure.kind === "break_before") return void request.socket.destroy();
    if (failure.kind === "respond") {
      response.writeHead(failure.status, { "content-type": "application/json", ...failure.headers });
      response.end(JSON.stringify({ error: "unavailable", message: "Injected.", request_id: "req_proxy" }));
      return;
    }
    const headers = new Headers();
    for (const name of ["authorization", "content-type", "idempotency-key", "accept"]) {
      const value = request.headers[name];
      if (value !== undefined) headers.set(name, value.toString());
    }
    const hasBody = method !== "GET" && method !== "DELETE";
    const upstream = await fetch(this.target + path, { method, headers, ...(hasBody && { body }) });
    const bytes = Buffer.from(await upstream.arrayBuffer());
    if (failure.kind === "break_after") return void request.socket.destroy();
    response.writeHead(upstream.status, { "content-type": upstream.headers.get("content-type") ?? "" });
    response.end(bytes);
  }
}
