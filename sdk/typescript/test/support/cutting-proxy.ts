import { createServer, connect, type Server, type Socket } from "node:net";
import type { AddressInfo } from "node:net";

/** Maximum number of response bytes that the proxy forwards on a connection before it cuts the connection. */
const MAX_BYTES = 1500;

/** Forwards connections to a server and cuts each connection after a random number of response bytes. */
export class CuttingProxy {
  /** Number of connections cut so far. */
  cuts = 0;
  readonly #server: Server;
  readonly #open = new Set<Socket>();

  private constructor(target: URL, random: () => number) {
    this.#server = createServer(client => {
      const upstream = connect(Number(target.port), target.hostname);
      let left = Math.floor(random() * MAX_BYTES);
      const cut = () => {
        client.destroy();
        upstream.destroy();
      };
      for (const socket of [client, upstream]) {
        this.#open.add(socket);
        socket.on("error", cut);
        socket.on("close", () => (this.#open.delete(socket), cut()));
      }
      client.on("data", bytes => upstream.write(bytes));
      upstream.on("data", bytes => {
        if (bytes.length <= left) {
          left -= bytes.length;
          client.write(bytes);
          return;
        }
        this.cuts += 1;
        client.write(bytes.subarray(0, left), cut);
      });
    });
  }

  static async start(target: string, random: () => number): Promise<CuttingProxy> {
    const proxy = new CuttingProxy(new URL(target), random);
    await new Promise<void>(resolve => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.#server.close();
    for (const socket of this.#open) socket.destroy();
  }
}
