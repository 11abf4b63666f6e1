import { FileContent } from "../file-content.js";
import { paged, type PagePromise } from "../page.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type { DeletedSnapshot, Snapshot, SnapshotStatus } from "../types.js";
import type { FileReadOptions } from "./files.js";

export interface SnapshotListParams {
  customer_id?: string;
  status?: SnapshotStatus;
  /** Items of a page: 1 to 100, 20 when left out. */
  limit?: number;
  cursor?: string;
}

/** The files of deployments that were deleted with `retain_filesystem`, for 30 days. */
export class Snapshots {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** The account's snapshots, newest first. */
  list(params: SnapshotListParams = {}, options?: RequestOptions): PagePromise<Snapshot> {
    return paged(cursor =>
      this.#transport.json({
        method: "GET",
        path: "/v1/snapshots",
        query: { ...params, cursor: cursor ?? params.cursor },
        options,
      }),
    );
  }

  /** A snapshot; it can be read and restored when its status is `ready`. */
  get(snapshotId: string, options?: RequestOptions): Promise<Snapshot> {
    return this.#transport.json({ method: "GET", path: path`/v1/snapshots/${snapshotId}`, options });
  }

  /** The archive, a tar compressed with zstd, read by `bytes()` or `stream()` of what this gives. */
  async content(snapshotId: string, options: FileReadOptions = {}): Promise<FileContent> {
    const { range, ...rest } = options;
    const answer = await this.#transport.open({
      method: "GET",
      path: path`/v1/snapshots/${snapshotId}/content`,
      headers: { Accept: "*/*", Range: range && `bytes=${range.start}-${range.end ?? ""}` },
      options: rest,
    });
    return new FileContent(answer);
  }

  /** Erases a snapshot for good. */
  delete(snapshotId: string, options?: RequestOptions): Promise<DeletedSnapshot> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/snapshots/${snapshotId}`,
      options,
      whenGone: { snapshot_id: snapshotId, status: "deleted" },
    });
  }
}
