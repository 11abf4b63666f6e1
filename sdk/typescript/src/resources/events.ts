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
  /** Selects only events after this event id. */
  after?: string;
  /** Maximum number of items per page, 1 to 100. Defaults to 20. */
  limit?: number;
  cursor?: string;
}

type EventItem = { event: string; id: string; data: unknown; created_at: string };

/** The events of a deployment. */
export class Events {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /**
   * Streams live events: `for await (const event of client.deployments.events.stream(id))`. Once the promise has
   * resolved, the stream is connected and misses no later event. It reconnects automatically, see {@link EventStream}.
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

  /** Lists the stored events of a deployment, oldest first. */
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
