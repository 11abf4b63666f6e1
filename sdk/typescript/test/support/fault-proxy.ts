import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What becomes of a request: it is answered so, its connection breaks before or after the server has it, or it passes. */
export type Fate =
  | { kind: "answer"; status: number; headers?: Record<string, string> }
  | { kind: "break_before" }
  | { kind: "break_after" }
  | { kind: "pass" };

/** Passes requests on to a server, and does to them what was prepared, in order; later ones pass. */
export class FaultProxy {
  readonly fates: Fate[] = [];
  readonly seen: { method: string; path: string; idempotencyKey: string | undefined; body: string }[] = [];
  readonly #server: Server;

  private constructor(readonly target: string) {
    this.#server = createServer((request, response) => void this.#handle(request, response));
  }

  static async start(target: string): Promise<FaultProxy> {
    const proxy = new FaultProxy(target);
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
    this.seen.push({ method, path, idempotencyKey: idempotencyKey?.toString(), body: body.toString() });
    const fate = this.fates.shift() ?? { kind: "pass" };
    if (fate.kind === "break_before") return void request.socket.destroy();
    if (fate.kind === "answer") {
      response.writeHead(fate.status, { "content-type": "application/json", ...fate.headers });
      response.end(JSON.stringify({ error: "unavailable", message: "Injected.", request_id: "req_proxy" }));
      return;
    }
    const headers = new Headers();
    for (const name of ["authorization", "content-type", "idempotency-key", "accept"]) {
      const value = request.headers[name];
      if (value !== undefined) headers.set(name, value.toString());
    }
    const hasBody = method !== "GET" && method !== "DELETE";
    const answer = await fetch(this.target + path, { method, headers, ...(hasBody && { body }) });
    const bytes = Buffer.from(await answer.arrayBuffer());
    if (fate.kind === "break_after") return void request.socket.destroy();
    response.writeHead(answer.status, { "content-type": answer.headers.get("content-type") ?? "" });
    response.end(bytes);
  }
}
