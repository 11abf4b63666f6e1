import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import Herm, { type ClientOptions, type Runtime } from "herm";
import { hurried } from "./runtime.js";

const READY = "listening on ";

/** Returns the path of the `herm` binary from the environment variable `HERM_BINARY`, which `npm test` sets. */
function findBinary(): string {
  const binary = process.env["HERM_BINARY"];
  if (binary) return binary;
  throw new Error("HERM_BINARY is not set: run the tests with `npm test`");
}

/** Returns the lowest port of the kernel's ephemeral port range. */
function firstEphemeralPort(): number {
  const range = readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8");
  return Number(range.trim().split(/\s+/)[0]);
}

/**
 * Returns a free port below the ephemeral port range. The kernel never assigns such a port to an outgoing connection. A
 * port inside the range would not stay free while the server is down: the kernel could assign it to any outgoing
 * connection, even to that of a client trying to reach the server.
 */
async function findFixedPort(): Promise<number> {
  const end = firstEphemeralPort();
  const begin = Math.ceil(end / 2);
  // Test files run in parallel in separate processes, so each process begins the search at a different port.
  for (let attempt = 0; attempt < end - begin; attempt++) {
    const port = begin + ((process.pid * 16 + attempt) % (end - begin));
    const probe = createServer();
    const isFree = await new Promise<boolean>(resolve => {
      probe.once("error", () => resolve(false));
      probe.listen(port, "127.0.0.1", () => resolve(true));
    });
    if (isFree) await new Promise<void>(resolve => probe.close(() => resolve()));
    if (isFree) return port;
  }
  throw new Error(`no port from ${begin} to ${end} is free`);
}

/** A real Herm server with its own data directory. */
export class TestServer {
  readonly binary = findBinary();
  readonly folder = mkdtempSync(join(tmpdir(), "herm-sdk-"));
  readonly key: string;
  readonly #environment: Record<string, string>;
  #process: ChildProcess | undefined;
  #url = "";
  #log = "";

  private constructor(environment: Record<string, string>) {
    this.key = execFileSync(this.binary, ["keys", "generate"], { encoding: "utf8" }).trim();
    this.#environment = { ...environment, PATH: process.env["PATH"] ?? "", HERM_BOOTSTRAP_KEY: this.key };
  }

  static async start(environment: Record<string, string> = {}): Promise<TestServer> {
    const server = new TestServer(environment);
    await server.run("127.0.0.1:0");
    return server;
  }

  /**
   * Starts a server on a port that stays free while the server is down, so that the server can restart on the same URL.
   */
  static async startOnFixedPort(): Promise<TestServer> {
    const server = new TestServer({});
    await server.run(`127.0.0.1:${await findFixedPort()}`);
    return server;
  }

  get url(): string {
    return this.#url;
  }

  /** Starts the server process, and waits until it accepts requests. */
  async run(listen = new URL(this.#url).host): Promise<void> {
    const args = ["serve", "--listen", listen, "--data-dir", join(this.folder, "data")];
    const child = spawn(this.binary, args, {
      cwd: this.folder,
      env: this.#environment,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#process = child;
    child.stderr.on("data", (text: Buffer) => (this.#log += text.toString()));
    for await (const line of createInterface({ input: child.stdout })) {
      if (!line.startsWith(READY)) continue;
      this.#url = line.slice(READY.length);
      // Keeps reading the server's standard output, because a full pipe would block the server.
      child.stdout.resume();
      return;
    }
    throw new Error(`the server did not start:\n${this.#log}`);
  }

  /** Kills the server process with SIGKILL and waits until it has exited. */
  async kill(): Promise<void> {
    const child = this.#process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise(resolve => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }

  async remove(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  /** Returns a client for the server. By default, it waits only briefly before retries. */
  client(options: ClientOptions = {}, runtime: Runtime = hurried): Herm {
    return new Herm({ apiKey: this.key, baseURL: this.#url, ...options }, runtime);
  }
}

/**
 * The parameters for creating a deployment. Its model `demo/tour` is a script built into the server, so that no
 * provider is needed.
 */
export const TOUR = {
  customer_id: "acme",
  name: "Ada",
  system_prompt: "You are the assistant of Acme Ltd.",
  model: "demo/tour",
};
