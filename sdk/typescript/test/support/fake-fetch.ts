import Herm, { type ClientOptions } from "herm";
import { TestRuntime } from "./runtime.js";

/** A request that the client passed to the fake `fetch`. */
export interface RecordedRequest {
  method: string;
  url: URL;
  headers: Headers;
  body: BodyInit | null | undefined;
  signal: AbortSignal;
}

export type Reply = Response | Error | ((request: RecordedRequest) => Response | Promise<Response>);

/**
 * Creates a fake `fetch` that returns these replies in order, one per request, and then repeats the last one. Returns
 * the fake and the list in which it records the requests.
 */
export function fakeFetch(...replies: Reply[]): { fetch: typeof fetch; requests: RecordedRequest[] } {
  const requests: RecordedRequest[] = [];
  const fake = async (input: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    const { method = "GET", headers, body, signal } = init;
    const url = new URL(String(input));
    const request = { method, url, headers: new Headers(headers), body, signal: signal! };
    const reply = replies[Math.min(requests.length, replies.length - 1)];
    requests.push(request);
    if (reply === undefined) throw new Error("no reply was prepared for this request");
    if (reply instanceof Error) throw reply;
    if (typeof reply === "function") return reply(request);
    // A reply may be returned several times, so it is cloned. A stream is not cloned: it can be read only once.
    return reply.headers.get("content-type") === "text/event-stream" ? reply : reply.clone();
  };
  return { fetch: fake as typeof fetch, requests };
}

export const KEY = "herm_sk_of_the_tests";

/** Creates a client that receives these replies from a fake `fetch` and whose time is simulated. */
export function fakeClient(replies: Reply[], options: ClientOptions = {}, runtime = new TestRuntime()) {
  const { fetch, requests } = fakeFetch(...replies);
  const client = new Herm({ apiKey: KEY, baseURL: "http://herm.test", fetch, ...options }, runtime);
  return { client, requests, runtime };
}

export function jsonResponse(body: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), {
    status,
    headers: { "content-type": "application/json", ...headers },
  });
}

/** Returns an error response in the format of the API. */
export function errorResponse(status: number, error: string, headers: Record<string, string> = {}): Response {
  return jsonResponse({ error, message: `It is ${error}.`, request_id: "req_1" }, status, {
    "x-request-id": "req_1",
    ...headers,
  });
}

/** Returns an event stream response that sends these pieces and then ends, fails with an error, or stays open. */
export function streamResponse(
  pieces: (string | Uint8Array)[],
  end: "end" | "fail" | "open" = "end",
): Response {
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
  // Turns off read-ahead. Otherwise, when the stream fails, the chunks that are not yet read would be lost.
  const body = new ReadableStream(source, { highWaterMark: 0 });
  return new Response(body, { headers: { "content-type": "text/event-stream" } });
}
