import Herm, { type ClientOptions } from "herm";
import { TestRuntime } from "./runtime.js";

/** A request as the fake server saw it. */
export interface Seen {
  method: string;
  url: URL;
  headers: Headers;
  body: BodyInit | null | undefined;
  signal: AbortSignal;
}

export type Reply = Response | Error | ((seen: Seen) => Response | Promise<Response>);

/** A `fetch` that gives these replies one after another, and the last one for ever. */
export function fakeFetch(...replies: Reply[]): { fetch: typeof fetch; seen: Seen[] } {
  const seen: Seen[] = [];
  const fake = async (input: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    const { method = "GET", headers, body, signal } = init;
    const one = { method, url: new URL(String(input)), headers: new Headers(headers), body, signal: signal! };
    const reply = replies[Math.min(seen.length, replies.length - 1)];
    seen.push(one);
    if (reply === undefined) throw new Error("no reply was prepared");
    if (reply instanceof Error) throw reply;
    if (typeof reply === "function") return reply(one);
    // What is said once may be said again; a stream runs once.
    return reply.headers.get("content-type") === "text/event-stream" ? reply : reply.clone();
  };
  return { fetch: fake as typeof fetch, seen };
}

export const KEY = "herm_sk_of_the_tests";

/** A client of a fake server, in a time of its own. */
export function fakeClient(replies: Reply[], options: ClientOptions = {}, runtime = new TestRuntime()) {
  const { fetch, seen } = fakeFetch(...replies);
  const client = new Herm({ apiKey: KEY, baseURL: "http://herm.test", fetch, ...options }, runtime);
  return { client, seen, runtime };
}

export function json(body: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), {
    status,
    headers: { "content-type": "application/json", ...headers },
  });
}

export function refusal(status: number, error: string, headers: Record<string, string> = {}): Response {
  return json({ error, message: `It is ${error}.`, request_id: "req_1" }, status, {
    "x-request-id": "req_1",
    ...headers,
  });
}

/** An answer that streams these pieces and then ends, fails or stays open. */
export function streamed(pieces: (string | Uint8Array)[], end: "end" | "fail" | "open" = "end"): Response {
  const rest = pieces.map(piece => (typeof piece === "string" ? new TextEncoder().encode(piece) : piece));
  const source: UnderlyingDefaultSource<Uint8Array> = {
    async pull(controller) {
      const piece = rest.shift();
      if (piece) return controller.enqueue(piece);
      if (end === "end") return controller.close();
      if (end === "fail") return controller.error(new TypeError("terminated"));
      return new Promise(() => {});
    },
  };
  // Nothing is fetched ahead: what is when the stream fails would be lost.
  const body = new ReadableStream(source, { highWaterMark: 0 });
  return new Response(body, { headers: { "content-type": "text/event-stream" } });
}
