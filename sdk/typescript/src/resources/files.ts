import { isBrowser } from "../environment.js";
import { FileContent } from "../file-content.js";
import { path, type Query, type RequestOptions, type Transport } from "../transport.js";
import type { DeletedFile, FileListing, WrittenFile } from "../types.js";

/**
 * Where a file is: its path relative to the workspace. Of a deployment without a persistent file system, also the
 * thread whose workspace is meant; the default thread's when it is left out.
 */
export type FileTarget = string | { path: string; thread_id?: string };

export interface FileReadOptions extends RequestOptions {
  /** Only these bytes: the first, and the last if not the file's own. */
  range?: { start: number; end?: number };
}

export interface FileWriteOptions extends RequestOptions {
  /** Writes only over the version that has this ETag. */
  ifMatch?: string;
  /** `*`: writes only where there is no file yet. */
  ifNoneMatch?: "*";
}

export interface FileDeleteOptions extends RequestOptions {
  /** Removes only the version that has this ETag. */
  ifMatch?: string;
}

/** The files of an agent's workspace. */
export class Files {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** A directory's entries, by name; the workspace's own when `target` is left out. */
  list(deploymentId: string, target: FileTarget = "", options?: RequestOptions): Promise<FileListing> {
    return this.#transport.json({
      method: "GET",
      path: path`/v1/deployments/${deploymentId}/files`,
      query: query(target),
      options,
    });
  }

  /** A file's bytes, read by `text()`, `bytes()` or `stream()` of what this gives. */
  async read(deploymentId: string, target: FileTarget, options: FileReadOptions = {}): Promise<FileContent> {
    const { range, ...rest } = options;
    const answer = await this.#transport.open({
      method: "GET",
      path: path`/v1/deployments/${deploymentId}/files/content`,
      query: query(target),
      headers: { Accept: "*/*", Range: range && `bytes=${range.start}-${range.end ?? ""}` },
      options: rest,
    });
    return new FileContent(answer);
  }

  /**
   * Writes a file, over the one that is there; parents are made. A `ReadableStream` is sent as it comes and therefore
   * never sent again. Everything else is, but under a condition only where the server cannot have written it yet.
   * A large file on a slow line needs a longer `timeout`.
   */
  async write(
    deploymentId: string,
    target: FileTarget,
    content: string | Uint8Array | Blob | ReadableStream<Uint8Array>,
    options: FileWriteOptions = {},
  ): Promise<WrittenFile> {
    const { ifMatch, ifNoneMatch, ...rest } = options;
    // Not every browser can send a stream; one that cannot would send its name.
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

  /** Removes a file, or a directory with all that is in it. */
  delete(deploymentId: string, target: FileTarget, options: FileDeleteOptions = {}): Promise<DeletedFile> {
    const { ifMatch, ...rest } = options;
    const where = query(target);
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/deployments/${deploymentId}/files`,
      query: where,
      headers: { "If-Match": ifMatch },
      options: rest,
      isConditional: ifMatch !== undefined,
      whenGone: { path: where.path, status: "deleted" },
    });
  }
}

function query(target: FileTarget): Query {
  if (typeof target === "string") return { path: target };
  return { path: target.path, thread_id: target.thread_id };
}
