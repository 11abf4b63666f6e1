import { HermError } from "./errors.js";
import type { RunError, RunStatus, Usage } from "./types.js";

interface OfRun {
  /** The event's id: what a stream resumes after. */
  id: string;
  run_id: string;
  thread_id: string;
}

/** A piece of what the agent says. The pieces of a `message_id` are together exactly its message. */
export interface TokenEvent extends OfRun {
  type: "token";
  message_id: string;
  delta: string;
}

/** A finished message, of either side. */
export interface MessageEvent extends OfRun {
  type: "message";
  message_id: string;
  role: "user" | "agent";
  content: string;
  /** It was cut off, by a fault of the model's stream or by a cancellation. */
  truncated?: boolean;
}

/** The agent calls a tool. */
export interface ToolCallEvent extends OfRun {
  type: "tool_call";
  tool_call_id: string;
  /** The tool's name; an MCP server's tool is `server.tool`. */
  tool: string;
  arguments: Record<string, unknown>;
}

/** A tool has answered. */
export interface ToolResultEvent extends OfRun {
  type: "tool_result";
  tool_call_id: string;
  tool: string;
  result: string;
  is_error?: boolean;
  duration_ms?: number;
}

/** The run stops for a person. */
export interface SteeringRequestEvent extends OfRun {
  type: "steering_request";
  steering_id: string;
  summary: string;
  kind?: "approval" | "question";
  tool?: string;
  arguments?: Record<string, unknown>;
  options?: string[];
  expires_at?: string;
}

/** A request to a person is settled. */
export interface SteeringResolvedEvent {
  type: "steering_resolved";
  id: string;
  steering_id: string;
  run_id: string;
  outcome: "approved" | "denied" | "answered" | "expired" | "cancelled";
  by: string;
}

/** A run has come to another status. */
export interface RunStatusEvent extends OfRun {
  type: "run_status";
  status: RunStatus;
  /** Why it failed. */
  error?: RunError;
  /** What it used; at its end. */
  usage?: Usage;
}

/** A file of the workspace has changed. */
export interface FilesystemEvent {
  type: "filesystem";
  id: string;
  change: "created" | "modified" | "deleted" | "renamed";
  /** Relative to the workspace. */
  path: string;
  from?: string;
  size?: number;
  run_id?: string;
}

/** The deployment has come to another status; after `deleted` nothing follows. */
export interface DeploymentStatusEvent {
  type: "deployment_status";
  id: string;
  status: "provisioning" | "ready" | "error" | "deleted";
  error?: RunError;
}

/** A memory has changed. */
export interface MemoryEvent {
  type: "memory";
  id: string;
  change: "created" | "updated" | "deleted";
  memory_id: string;
}

/** A dream has come to another status. */
export interface DreamEvent {
  type: "dream";
  id: string;
  dream_id: string;
  status: string;
}

/** Events between those asked for and these are no longer kept, or what was asked for lies beyond the latest event. */
export interface GapEvent {
  type: "gap";
  id: string;
  requested: string;
  earliest: string;
  latest: string;
}

/**
 * What happens in a deployment. `type` says which: `if (event.type === "tool_call")` narrows to it. A newer server may
 * send types that are not listed here; they come in the same shape.
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

/** The types of events that can be asked for. */
export type HermEventType = Exclude<HermEvent["type"], "gap">;

/** An event of a listing. */
export type StoredEvent = HermEvent & { created_at: string };

/** The event of one frame of a stream. */
export function eventOf(type: string, id: string, data: string): HermEvent {
  let fields: unknown;
  try {
    fields = JSON.parse(data);
  } catch (cause) {
    throw new HermError(`the data of event ${id} is not JSON`, { cause });
  }
  return joined(type, id, fields);
}

/** The event of one item of a listing. */
export function storedEventOf(item: {
  event: string;
  id: string;
  data: unknown;
  created_at: string;
}): StoredEvent {
  return Object.assign(joined(item.event, item.id, item.data), { created_at: item.created_at });
}

function joined(type: string, id: string, fields: unknown): HermEvent {
  if (typeof fields !== "object" || fields === null || Array.isArray(fields)) {
    throw new HermError(`the data of event ${id} is not an object`);
  }
  return { ...fields, type, id } as HermEvent;
}

/** Whether this is the last event of a deployment. */
export function isDeletion(event: HermEvent): boolean {
  return event.type === "deployment_status" && event.status === "deleted";
}
