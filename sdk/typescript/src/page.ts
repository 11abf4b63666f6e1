import { HermError } from "./errors.js";

/** A page of a list as the server sends it. */
export interface PageBody<T> {
  data: T[];
  next_cursor?: string | null;
}

/** Requests the page that begins at the cursor, or the first page if the cursor is `undefined`. */
export type LoadPage<T> = (cursor: string | undefined) => Promise<PageBody<T>>;

/**
 * One page of a list. Iterating a page with `for await` yields its items and then those of all later pages. Each later
 * page is requested only when its first item is needed.
 */
export class Page<T> implements AsyncIterable<T> {
  /** The items of this page. */
  readonly data: T[];
  /** The cursor of the next page, or `null` on the last page. */
  readonly next_cursor: string | null;
  readonly #load: LoadPage<T>;

  constructor(body: PageBody<T>, load: LoadPage<T>) {
    this.data = body.data;
    this.next_cursor = body.next_cursor ?? null;
    this.#load = load;
  }

  /** Returns true if there is another page. */
  hasNextPage(): boolean {
    return this.next_cursor !== null;
  }

  /** Requests the next page. Throws if this is the last page, so check {@link hasNextPage} first. */
  async getNextPage(): Promise<Page<T>> {
    if (this.next_cursor === null) throw new HermError("This is the last page; check hasNextPage() first.");
    const next = new Page(await this.#load(this.next_cursor), this.#load);
    // If the server returned the same cursor again, an iteration would never end.
    if (next.next_cursor === this.next_cursor)
      throw new HermError("The server returned the same page cursor twice, so the list would never end.");
    return next;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    let page: Page<T> = this;
    for (;;) {
      yield* page.data;
      if (!page.hasNextPage()) return;
      page = await page.getNextPage();
    }
  }
}

/** A list request. Awaiting it returns the first page. Iterating it with `for await` yields the items of all pages. */
export type PagePromise<T> = Promise<Page<T>> & AsyncIterable<T>;

export function paged<T>(load: LoadPage<T>): PagePromise<T> {
  const first = load(undefined).then(body => new Page(body, load));
  return Object.assign(first, {
    async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
      yield* await first;
    },
  });
}
