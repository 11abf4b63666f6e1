import { HermError } from "./errors.js";
import type { RunError, RunStatus, Usage } from "./types.js";

interface RunEvent {
  /** The event's id. A stream can resume after this event. */
  id: string;
  run_id: string;
  thread_id: string;
}

/**
 * A piece of an agent message. All pieces with the same `message_id`, in order, add up to exactly the message's
 * content.
 */
export interface TokenEvent extends RunEvent {
  type: "token";
  message_id: string;
  delta: string;
}

/** A message of the user or the agent. No further pieces of this message follow. */
export interface MessageEvent extends RunEvent {
  type: "message";
  message_id: string;
  role: "user" | "agent";
  content: string;
  /** True if the message is incomplete, because its model call broke off or its run was cancelled. */
  truncated?: boolean;
}

/** The agent is calling a tool. A `tool_result` event with the same `tool_call_id` follows. */
export interface ToolCallEvent extends RunEvent {
  type: "tool_call";
  tool_call_id: string;
  /** The name of the tool. A tool of an MCP server is named `<server>.<tool>`. */
  tool: string;
  arguments: Record<string, unknown>;
}

/** The result of a tool call. */
export interface ToolResultEvent extends RunEvent {
  type: "tool_result";
  tool_call_id: string;
  tool: string;
  result: string;
  is_error?: boolean;
  duration_ms?: number;
}

/** The run is waiting for a person to approve a tool call or to answer a question. */
export interface SteeringRequestEvent extends RunEvent {
  type: "steering_request";
  steering_id: string;
  summary: string;
  kind?: "approval" | "question";
  tool?: string;
  arguments?: Record<string, unknown>;
  options?: string[];
  expires_at?: string;
}

/** A steering request was resolved: answered by a person, expired, or cancelled with its run. */
export interface SteeringResolvedEvent {
  type: "steering_resolved";
  id: string;
  steering_id: string;
  run_id: string;
  outcome: "approved" | "denied" | "answered" | "expired" | "cancelled";
  by: string;
}

/** The status of a run has changed. */
export interface RunStatusEvent extends RunEvent {
  type: "run_status";
  status: RunStatus;
  /** The reason why the run failed, if its status is `error`. */
  error?: RunError;
  /**
   * The model calls, tool calls and tokens that the run has consumed. Only the run's last status event has this field.
   */
  usage?: Usage;
}

/** A file in the workspace was created, modified, deleted or renamed. */
export interface FilesystemEvent {
  type: "filesystem";
  id: string;
  change: "created" | "modified" | "deleted" | "renamed";
  /** The path of the file, relative to the workspace. */
  path: string;
  from?: string;
  size?: number;
  run_id?: string;
}

/** The status of the deployment has changed. An event with status `deleted` is the last event of a deployment. */
export interface DeploymentStatusEvent {
  type: "deployment_status";
  id: string;
  status: "provisioning" | "ready" | "error" | "deleted";
  error?: RunError;
}

/** A memory of the agent was created, updated or deleted. */
export interface MemoryEvent {
  type: "memory";
  id: string;
  change: "created" | "updated" | "deleted";
  memory_id: string;
}

/** The status of a dream has changed. A dream is a job that tidies the memories of an idle deployment. */
export interface DreamEvent {
  type: "dream";
  id: string;
  dream_id: string;
  status: string;
}

/**
 * Some requested events cannot be returned: they are no longer stored, or the requested event id is greater than the id
 * of the latest event.
 */
export interface GapEvent {
  type: "gap";
  id: string;
  requested: string;
  earliest: string;
  latest: string;
}

/**
 * An event of a deployment. Check `type` to narrow the TypeScript type, for example `if (event.type === "tool_call")`.
 * A newer server may send events of other types, which also have a `type` and an `id`.
 */
export type HermEvent =
  | TokenEvent
  | MessageEvent
  | ToolCallEvent
  | ToolResultEvent
  | SteeringRequestEvent
  | SteeringResolvedEvent
  | RunStatusEvent
  | FilesystemEvent
  | DeploymentStatusEvent
  | MemoryEvent
  | DreamEvent
  | GapEvent;

/** The event types that streams and lists can select with `types`. */
export type HermEventType = Exclude<HermEvent["type"], "gap">;

/** An event of the event log, with the time at which it was stored. Streamed events do not have this time. */
export type StoredEvent = HermEvent & { created_at: string };

/** Creates an event from the type, id and data of one server-sent event. */
export function eventOf(type: string, id: string, data: string): HermEvent {
  let fields: unknown;
  try {
    fields = JSON.parse(data);
  } catch (cause) {
    throw new HermError(`The data of event ${id} is not JSON.`, { cause });
  }
  return newEvent(type, id, fields);
}

/** Creates an event from an item of a list response. */
export function storedEventOf(item: {
  event: string;
  id: string;
  data: unknown;
  created_at: string;
}): StoredEvent {
  return Object.assign(newEvent(item.event, item.id, item.data), { created_at: item.created_at });
}

function newEvent(type: string, id: string, fields: unknown): HermEvent {
  if (typeof fields !== "object" || fields === null || Array.isArray(fields)) {
    throw new HermError(`The data of event ${id} is not an object.`);
  }
  return { ...fields, type, id } as HermEvent;
}

/** Returns true if the event reports the deletion of its deployment. No event of the deployment follows it. */
export function isDeletion(event: HermEvent): boolean {
  return event.type === "deployment_status" && event.status === "deleted";
}
