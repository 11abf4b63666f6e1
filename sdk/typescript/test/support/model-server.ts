import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

/** A test server that acts as a model provider with the OpenAI Chat Completions API. */
export class ModelServer {
  /** The text with which the server replies. With `undefined`, a reply stalls after its first piece. */
  reply: string | undefined = "Hello.";
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => {
      request.resume();
      response.writeHead(200, { "content-type": "text/event-stream" });
      const reply = this.reply;
      const chunk = (delta: object, finish_reason: string | null) =>
        response.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta, finish_reason }] })}\n\n`);
      chunk({ role: "assistant", content: reply === undefined ? "Let me think" : "" }, null);
      if (reply === undefined) return;
      for (const content of reply.split(/(?<= )/)) chunk({ content }, null);
      chunk({}, "stop");
      response.end("data: [DONE]\n\n");
    });
  }

  static async start(): Promise<ModelServer> {
    const server = new ModelServer();
    await new Promise<void>(resolve => server.#server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  /** Environment variables that make the Herm server use this test server as its model provider `openai`. */
  get environment(): Record<string, string> {
    const { port } = this.#server.address() as AddressInfo;
    return { OPENAI_API_KEY: "sk-of-the-tests", OPENAI_BASE_URL: `http://127.0.0.1:${port}/v1` };
  }

  stop(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
