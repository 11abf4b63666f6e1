import { type OpenResponse, connectionError } from "./transport.js";

/** The content of a file that is being downloaded. It can be read only once, with `text()`, `bytes()` or `stream()`. */
export class FileContent {
  /** The size of the content in bytes, or `undefined` if the server did not send it. */
  readonly size: number | undefined;
  /** The media type of the file according to the server. */
  readonly contentType: string | undefined;
  /** The entity tag of the file. Pass it as `ifMatch` to write the file only if it is unchanged. */
  readonly etag: string | undefined;
  readonly #response: Response;
  readonly #release: () => void;

  /** Wraps a response. Only this library creates instances. @internal */
  constructor({ response, release }: OpenResponse) {
    const length = response.headers.get("content-length");
    this.size = length === null ? undefined : Number(length);
    this.contentType = response.headers.get("content-type") ?? undefined;
    this.etag = response.headers.get("etag") ?? undefined;
    this.#response = response;
    this.#release = release;
  }

  /** Reads the complete content as UTF-8 text. */
  async text(): Promise<string> {
    return new TextDecoder().decode(await this.bytes());
  }

  /** Reads the complete content as bytes. */
  async bytes(): Promise<Uint8Array> {
    if (this.#response.bodyUsed) throw new TypeError("The content of this file was already read.");
    try {
      return new Uint8Array(await this.#response.arrayBuffer());
    } catch (error) {
      throw connectionError("reading a file", error);
    } finally {
      this.#release();
    }
  }

  /** Returns the content as a stream of bytes. */
  stream(): ReadableStream<Uint8Array> {
    const body = this.#response.body;
    if (!body) return new Blob().stream();
    if (this.#response.bodyUsed || body.locked)
      throw new TypeError("The content of this file was already read.");
    const whenDone = new TransformStream<Uint8Array, Uint8Array>({ flush: () => this.#release() });
    return body.pipeThrough(whenDone);
  }
}
