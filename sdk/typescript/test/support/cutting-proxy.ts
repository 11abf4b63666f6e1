import { createServer, connect, type Server, type Socket } from "node:net";
import type { AddressInfo } from "node:net";

/** Longest piece of a conversation that comes through before it is cut. */
const MAX_BYTES = 1500;

/** Passes connections on to a server, and cuts each after a number of bytes that the generator chooses. */
export class CuttingProxy {
  /** Connections cut so far. */
  cuts = 0;
  /** Lets everything through from now on. */
  isGentle = false;
  readonly #server: Server;
  readonly #open = new Set<Socket>();

  private constructor(target: URL, random: () => number) {
    this.#server = createServer(near => {
      const far = connect(Number(target.port), target.hostname);
      let left = Math.floor(random() * MAX_BYTES);
      const cut = () => {
        near.destroy();
        far.destroy();
      };
      for (const socket of [near, far]) {
        this.#open.add(socket);
        socket.on("error", cut);
        socket.on("close", () => (this.#open.delete(socket), cut()));
      }
      near.on("data", bytes => far.write(bytes));
      far.on("data", bytes => {
        if (this.isGentle || bytes.length <= left) {
          left -= bytes.length;
          near.write(bytes);
          return;
        }
        this.cuts += 1;
        near.write(bytes.subarray(0, left), cut);
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
