import { type OpenAnswer, connectionError } from "./transport.js";

/** A file's bytes on their way. They can be read once, in one of three ways. */
export class FileContent {
  /** How many bytes come, where the server says so. */
  readonly size: number | undefined;
  /** The type that the server takes the file for. */
  readonly contentType: string | undefined;
  /** The version of the file, for `ifMatch` of a write. */
  readonly etag: string | undefined;
  readonly #response: Response;
  readonly #release: () => void;

  /** @internal */
  constructor({ response, release }: OpenAnswer) {
    const length = response.headers.get("content-length");
    this.size = length === null ? undefined : Number(length);
    this.contentType = response.headers.get("content-type") ?? undefined;
    this.etag = response.headers.get("etag") ?? undefined;
    this.#response = response;
    this.#release = release;
  }

  /** All of it, as UTF-8 text. */
  async text(): Promise<string> {
    return new TextDecoder().decode(await this.bytes());
  }

  /** All of it. */
  async bytes(): Promise<Uint8Array> {
    if (this.#response.bodyUsed) throw new TypeError("this file's bytes were read already");
    try {
      return new Uint8Array(await this.#response.arrayBuffer());
    } catch (error) {
      throw connectionError("reading a file", error);
    } finally {
      this.#release();
    }
  }

  /** The bytes as they come. */
  stream(): ReadableStream<Uint8Array> {
    const body = this.#response.body;
    if (!body) return new Blob().stream();
    if (this.#response.bodyUsed || body.locked) throw new TypeError("this file's bytes were read already");
    const whenDone = new TransformStream<Uint8Array, Uint8Array>({ flush: () => this.#release() });
    return body.pipeThrough(whenDone);
  }
}
