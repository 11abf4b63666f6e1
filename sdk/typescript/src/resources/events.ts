import { type HermEventType, type StoredEvent, storedEventOf } from "../events.js";
import { type PageBody, paged, type PagePromise } from "../page.js";
import {
  EventStream,
  type EventStreamOptions,
  type EventStreamParams,
  type EventStreamPromise,
} from "../stream.js";
import { path, type RequestOptions, type Transport } from "../transport.js";

export interface EventListParams {
  thread_id?: string;
  run_id?: string;
  types?: readonly HermEventType[];
  /** Everything after this event id. */
  after?: string;
  /** Items of a page: 1 to 100, 20 when left out. */
  limit?: number;
  cursor?: string;
}

type EventItem = { event: string; id: string; data: unknown; created_at: string };

/** What happens in a deployment. */
export class Events {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /**
   * Streams what happens, live: `for await (const event of client.deployments.events.stream(id))`. Awaited first, it is
   * connected, and misses nothing of what is caused afterwards. It reconnects by itself; see {@link EventStream}.
   */
  stream(
    deploymentId: string,
    params: EventStreamParams = {},
    options?: EventStreamOptions,
  ): EventStreamPromise {
    return EventStream.connect(
      this.#transport,
      path`/v1/deployments/${deploymentId}/events`,
      params,
      options,
    );
  }

  /** What has happened, oldest first. */
  list(
    deploymentId: string,
    params: EventListParams = {},
    options?: RequestOptions,
  ): PagePromise<StoredEvent> {
    return paged(async cursor => {
      const page = await this.#transport.json<PageBody<EventItem>>({
        method: "GET",
        path: path`/v1/deployments/${deploymentId}/events`,
        query: { ...params, cursor: cursor ?? params.cursor },
        options,
      });
      return { ...page, data: page.data.map(storedEventOf) };
    });
  }
}
