import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import Herm, { type ClientOptions, type Runtime } from "herm";
import { hurried } from "./runtime.js";

const READY = "listening on ";

/** The server's binary, which `npm test` has found. */
function findBinary(): string {
  const binary = process.env["HERM_BINARY"];
  if (binary) return binary;
  throw new Error("HERM_BINARY is not set: run the tests by `npm test`");
}

/** The first port that the kernel gives to whoever asks for any. */
function firstEphemeralPort(): number {
  const range = readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8");
  return Number(range.trim().split(/\s+/)[0]);
}

/**
 * A free port that stays free while a server is away: the kernel gives it to no connection, not even to one that is
 * made to the server meanwhile.
 */
async function portOfItsOwn(): Promise<number> {
  const end = firstEphemeralPort();
  const begin = Math.ceil(end / 2);
  // Test files run side by side, each in a process of its own.
  for (let tried = 0; tried < end - begin; tried++) {
    const port = begin + ((process.pid * 16 + tried) % (end - begin));
    const probe = createServer();
    const isFree = await new Promise<boolean>(tell => {
      probe.once("error", () => tell(false));
      probe.listen(port, "127.0.0.1", () => tell(true));
    });
    await new Promise<void>(closed => (isFree ? probe.close(() => closed()) : closed()));
    if (isFree) return port;
  }
  throw new Error(`no port from ${begin} to ${end} is free`);
}

/** The real server, on a data directory of its own. */
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

  /** One that is to be killed and to come back at the same address. */
  static async startMortal(): Promise<TestServer> {
    const server = new TestServer({});
    await server.run(`127.0.0.1:${await portOfItsOwn()}`);
    return server;
  }

  get url(): string {
    return this.#url;
  }

  /** Starts it, and waits until it takes requests. */
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
      // A server whose words nobody reads must not wait for a reader.
      child.stdout.resume();
      return;
    }
    throw new Error(`the server did not start:\n${this.#log}`);
  }

  /** Ends it as `kill -9` does. */
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

  /** A client of it, whose waits are short. */
  client(options: ClientOptions = {}, runtime: Runtime = hurried): Herm {
    return new Herm({ apiKey: this.key, baseURL: this.#url, ...options }, runtime);
  }
}

/** A deployment whose model is the built-in script. */
export const TOUR = {
  customer_id: "acme",
  name: "Ada",
  system_prompt: "You are the assistant of Acme Ltd.",
  model: "demo/tour",
};
