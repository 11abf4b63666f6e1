export { type ClientOptions, Herm, Herm as default } from "./client.js";
export * from "./errors.js";
export * from "./wait-errors.js";
export type * from "./events.js";
export type * from "./types.js";
export { FileContent } from "./file-content.js";
export { Page, type PagePromise } from "./page.js";
export {
  EventStream,
  type EventStreamOptions,
  type EventStreamParams,
  type EventStreamPromise,
} from "./stream.js";
export type { Logger, RequestOptions } from "./transport.js";
export type { FinishedRun, SendAndWaitOptions } from "./send-and-wait.js";
export type { WaitOptions } from "./wait-until-ready.js";
export type { Runtime } from "./runtime.js";
export type * from "./resources/account.js";
export type * from "./resources/deployments.js";
export type * from "./resources/events.js";
export type * from "./resources/files.js";
export type * from "./resources/mcp-servers.js";
export type * from "./resources/messages.js";
export type * from "./resources/runs.js";
export type * from "./resources/skills.js";
export type * from "./resources/snapshots.js";
export type * from "./resources/steering.js";
export type * from "./resources/threads.js";
export type * from "./resources/tools.js";
export { VERSION } from "./version.js";
