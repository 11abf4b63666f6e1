import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

/** A model provider that speaks OpenAI Chat Completions and says what it is told to. */
export class ModelServer {
  /** What is said next; `undefined`: nothing, for as long as the caller waits. */
  says: string | undefined = "Hello.";
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => {
      request.resume();
      response.writeHead(200, { "content-type": "text/event-stream" });
      const says = this.says;
      const chunk = (delta: object, finish_reason: string | null) =>
        response.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta, finish_reason }] })}\n\n`);
      chunk({ role: "assistant", content: says === undefined ? "Let me think" : "" }, null);
      if (says === undefined) return;
      for (const content of says.split(/(?<= )/)) chunk({ content }, null);
      chunk({}, "stop");
      response.end("data: [DONE]\n\n");
    });
  }

  static async start(): Promise<ModelServer> {
    const server = new ModelServer();
    await new Promise<void>(resolve => server.#server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  /** What the server under test is told, so that its provider `openai` is this one. */
  get environment(): Record<string, string> {
    const { port } = this.#server.address() as AddressInfo;
    return { OPENAI_API_KEY: "sk-of-the-tests", OPENAI_BASE_URL: `http://127.0.0.1:${port}/v1` };
  }

  stop(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
