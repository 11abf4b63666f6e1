import { paged, type PagePromise } from "../page.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type { DeletedThread, Thread, ThreadInfo, ThreadItem } from "../types.js";

export interface ThreadParams {
  /** 1 to 256 characters; `null`: none. */
  title?: string | null;
}

export interface ThreadListParams {
  /** Items of a page: 1 to 100, 20 when left out. */
  limit?: number;
  cursor?: string;
}

export interface ThreadGetParams {
  /** Of a thread that was got: for the messages before those. */
  messages_cursor?: string;
}

/** Conversations: each has a history of its own; memory and files are the deployment's. */
export class Threads {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Begins a thread, with an empty history. */
  create(deploymentId: string, params: ThreadParams = {}, options?: RequestOptions): Promise<ThreadInfo> {
    return this.#transport.json({
      method: "POST",
      path: path`/v1/deployments/${deploymentId}/threads`,
      json: params,
      options,
    });
  }

  /** A deployment's threads, newest first. */
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

  /** A thread with its last hundred messages, oldest first. */
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

  /** Gives a thread another title. */
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

  /** Cancels the thread's run and erases its messages and events. The default thread cannot be deleted. */
  delete(deploymentId: string, threadId: string, options?: RequestOptions): Promise<DeletedThread> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/deployments/${deploymentId}/threads/${threadId}`,
      options,
      whenGone: { thread_id: threadId, status: "deleted" },
    });
  }
}
