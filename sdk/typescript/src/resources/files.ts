import { isBrowser } from "../environment.js";
import { FileContent } from "../file-content.js";
import { path, type Query, type RequestOptions, type Transport } from "../transport.js";
import type { DeletedFile, FileListing, WrittenFile } from "../types.js";

/**
 * The path of a file, relative to the workspace. If each thread of the deployment has its own workspace
 * (`persistent_filesystem: false`), `thread_id` selects the thread. Without it, the default thread is used.
 */
export type FileTarget = string | { path: string; thread_id?: string };

export interface FileReadOptions extends RequestOptions {
  /**
   * Reads only a part of the file: the bytes from `start` to `end`, both inclusive. `end` defaults to the end of the
   * file.
   */
  range?: { start: number; end?: number };
}

export interface FileWriteOptions extends RequestOptions {
  /** Writes only if the existing file has this entity tag. Otherwise throws `ConflictError`. */
  ifMatch?: string;
  /** If `*`, writes only if the file does not exist. Otherwise throws `ConflictError`. */
  ifNoneMatch?: "*";
}

export interface FileDeleteOptions extends RequestOptions {
  /** Deletes the file only if it has this entity tag. Otherwise throws `ConflictError`. */
  ifMatch?: string;
}

/** The files in an agent's workspace. */
export class Files {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Lists the entries of the directory `target`, sorted by name. `target` defaults to the root of the workspace. */
  list(deploymentId: string, target: FileTarget = "", options?: RequestOptions): Promise<FileListing> {
    return this.#transport.json({
      method: "GET",
      path: path`/v1/deployments/${deploymentId}/files`,
      query: query(target),
      options,
    });
  }

  /** Starts the download of a file. Read the content with `text()`, `bytes()` or `stream()` of the result. */
  async read(deploymentId: string, target: FileTarget, options: FileReadOptions = {}): Promise<FileContent> {
    const { range, ...rest } = options;
    const response = await this.#transport.open({
      method: "GET",
      path: path`/v1/deployments/${deploymentId}/files/content`,
      query: query(target),
      headers: { Accept: "*/*", Range: range && `bytes=${range.start}-${range.end ?? ""}` },
      options: rest,
    });
    return new FileContent(response);
  }

  /**
   * Writes a file. Replaces an existing file and creates missing parent directories. A `ReadableStream` can be read
   * only once, so its upload is never retried. A write with `ifMatch` or `ifNoneMatch` is retried only if the server
   * cannot have executed it. For a large file on a slow connection, set a longer `timeout`.
   */
  async write(
    deploymentId: string,
    target: FileTarget,
    content: string | Uint8Array | Blob | ReadableStream<Uint8Array>,
    options: FileWriteOptions = {},
  ): Promise<WrittenFile> {
    const { ifMatch, ifNoneMatch, ...rest } = options;
    // Some browsers cannot send a stream as a request body. They would send the string "[object ReadableStream]", so a
    // stream is read completely before it is sent from a browser.
    const isStream = content instanceof ReadableStream;
    const bytes = isStream && isBrowser() ? await new Response(content).blob() : content;
    return this.#transport.json({
      method: "PUT",
      path: path`/v1/deployments/${deploymentId}/files`,
      query: query(target),
      bytes,
      headers: {
        "Content-Type": "application/octet-stream",
        "If-Match": ifMatch,
        "If-None-Match": ifNoneMatch,
      },
      options: rest,
      isConditional: (ifMatch ?? ifNoneMatch) !== undefined,
    });
  }

  /** Deletes a file, or a directory with its content. */
  delete(deploymentId: string, target: FileTarget, options: FileDeleteOptions = {}): Promise<DeletedFile> {
    const { ifMatch, ...rest } = options;
    const targetQuery = query(target);
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/deployments/${deploymentId}/files`,
      query: targetQuery,
      headers: { "If-Match": ifMatch },
      options: rest,
      isConditional: ifMatch !== undefined,
      whenDeleted: { path: targetQuery.path, status: "deleted" },
    });
  }
}

function query(target: FileTarget): Query {
  if (typeof target === "string") return { path: target };
  return { path: target.path, thread_id: target.thread_id };
}
