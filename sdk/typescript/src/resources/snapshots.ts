import { FileContent } from "../file-content.js";
import { paged, type PagePromise } from "../page.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type { DeletedSnapshot, Snapshot, SnapshotStatus } from "../types.js";
import type { FileReadOptions } from "./files.js";

export interface SnapshotListParams {
  customer_id?: string;
  status?: SnapshotStatus;
  /** Maximum number of items per page, 1 to 100. Defaults to 20. */
  limit?: number;
  cursor?: string;
}

/** Snapshots: the files of deployments that were deleted with `retain_filesystem`, stored for 30 days. */
export class Snapshots {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Lists the account's snapshots, newest first. */
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

  /** Returns a snapshot. It can be downloaded and restored once its status is `ready`. */
  get(snapshotId: string, options?: RequestOptions): Promise<Snapshot> {
    return this.#transport.json({ method: "GET", path: path`/v1/snapshots/${snapshotId}`, options });
  }

  /**
   * Starts the download of the snapshot's archive, a tar file compressed with zstd. Read it with `bytes()` or
   * `stream()` of the result.
   */
  async content(snapshotId: string, options: FileReadOptions = {}): Promise<FileContent> {
    const { range, ...rest } = options;
    const response = await this.#transport.open({
      method: "GET",
      path: path`/v1/snapshots/${snapshotId}/content`,
      headers: { Accept: "*/*", Range: range && `bytes=${range.start}-${range.end ?? ""}` },
      options: rest,
    });
    return new FileContent(response);
  }

  /** Deletes a snapshot permanently. */
  delete(snapshotId: string, options?: RequestOptions): Promise<DeletedSnapshot> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/snapshots/${snapshotId}`,
      options,
      whenDeleted: { snapshot_id: snapshotId, status: "deleted" },
    });
  }
}
