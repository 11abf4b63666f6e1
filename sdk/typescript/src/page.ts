import { HermError } from "./errors.js";

/** A list as the server sends it. */
export interface PageBody<T> {
  data: T[];
  next_cursor?: string | null;
}

/** Asks for the page at a cursor; for the first one without. */
export type LoadPage<T> = (cursor: string | undefined) => Promise<PageBody<T>>;

/**
 * One page of a list. Iterated with `for await`, it gives its own items and then those of all pages after it, which it
 * asks for as they are needed.
 */
export class Page<T> implements AsyncIterable<T> {
  /** The items of this page. */
  readonly data: T[];
  /** Where the next page begins; `null` on the last one. */
  readonly next_cursor: string | null;
  readonly #load: LoadPage<T>;

  constructor(body: PageBody<T>, load: LoadPage<T>) {
    this.data = body.data;
    this.next_cursor = body.next_cursor ?? null;
    this.#load = load;
  }

  /** Whether there is a page after this one. */
  hasNextPage(): boolean {
    return this.next_cursor !== null;
  }

  /** The page after this one. Ask {@link hasNextPage} first: after the last page it throws. */
  async getNextPage(): Promise<Page<T>> {
    if (this.next_cursor === null) throw new HermError("this is the last page; ask hasNextPage() first");
    const next = new Page(await this.#load(this.next_cursor), this.#load);
    // Else a list would never end.
    if (next.next_cursor === this.next_cursor)
      throw new HermError("the server gave the same page cursor twice");
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

/** Awaited, the first page; iterated with `for await`, the items of all pages. */
export type PagePromise<T> = Promise<Page<T>> & AsyncIterable<T>;

export function paged<T>(load: LoadPage<T>): PagePromise<T> {
  const first = load(undefined).then(body => new Page(body, load));
  return Object.assign(first, {
    async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
      yield* await first;
    },
  });
}
