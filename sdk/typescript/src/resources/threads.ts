import { paged, type PagePromise } from "../page.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type { DeletedThread, Thread, ThreadInfo, ThreadItem } from "../types.js";

export interface ThreadParams {
  /** The title of the thread, 1 to 256 characters, or `null` for no title. */
  title?: string | null;
}

export interface ThreadListParams {
  /** Maximum number of items per page, 1 to 100. Defaults to 20. */
  limit?: number;
  cursor?: string;
}

export interface ThreadGetParams {
  /** Selects older messages: pass the `messages_cursor` of the previous result. */
  messages_cursor?: string;
}

/** Threads: conversations with one agent. Each has its own history. By default they share the deployment's files. */
export class Threads {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Creates a thread with an empty history. */
  create(deploymentId: string, params: ThreadParams = {}, options?: RequestOptions): Promise<ThreadInfo> {
    return this.#transport.json({
      method: "POST",
      path: path`/v1/deployments/${deploymentId}/threads`,
      json: params,
      options,
    });
  }

  /** Lists a deployment's threads, newest first. */
  list(
    deploymentId: string,
    params: ThreadListParams = {},
    options?: RequestOptions,
  ): PagePromise<ThreadItem> {
    return paged(cursor =>
      this.#transport.json({
        method: "GET",
        path: path`/v1/deployments/${deploymentId}/threads`,
        query: { ...params, cursor: cursor ?? params.cursor },
        options,
      }),
    );
  }

  /** Returns a thread with its last 100 messages, oldest first. For older messages, pass `messages_cursor`. */
  get(
    deploymentId: string,
    threadId: string,
    params: ThreadGetParams = {},
    options?: RequestOptions,
  ): Promise<Thread> {
    return this.#transport.json({
      method: "GET",
      path: path`/v1/deployments/${deploymentId}/threads/${threadId}`,
      query: { ...params },
      options,
    });
  }

  /** Changes the title of a thread. */
  update(
    deploymentId: string,
    threadId: string,
    params: ThreadParams,
    options?: RequestOptions,
  ): Promise<ThreadInfo> {
    return this.#transport.json({
      method: "PATCH",
      path: path`/v1/deployments/${deploymentId}/threads/${threadId}`,
      json: params,
      options,
    });
  }

  /**
   * Deletes a thread: cancels its active run and erases its messages and events. The default thread cannot be deleted.
   */
  delete(deploymentId: string, threadId: string, options?: RequestOptions): Promise<DeletedThread> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/deployments/${deploymentId}/threads/${threadId}`,
      options,
      whenDeleted: { thread_id: threadId, status: "deleted" },
    });
  }
}
