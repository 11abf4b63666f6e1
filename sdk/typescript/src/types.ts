/** The resources by their names, as the API's document has them. What the document lacks so far is in pending.ts. */

import type { components } from "./openapi.js";
import type { McpServer, McpServerParams, SandboxExtras, Skill, SkillParams } from "./pending.js";

type Schemas = components["schemas"];

/** The type without `null`s of a body's fields, which mean the same as leaving them out. */
type Given<T> = { [K in keyof T]: Exclude<T[K], null> };

export type DeletedFile = Schemas["DeletedFile"];
export type DeploymentStatus = Schemas["DeploymentStatus"];
export type Features = Schemas["Features"];
export type Fault = Schemas["Fault"];
export type FileEntry = Schemas["FileEntry"];
export type FileListing = Schemas["FileListing"];
export type Message = Schemas["Message"];
export type Run = Schemas["Run"];
export type RunError = Schemas["RunError"];
export type RunStatus = Schemas["RunStatus"];
export type RunStep = Schemas["RunStep"];
export type SentMessage = Schemas["SentMessage"];
export type Thread = Schemas["Thread"];
export type ThreadInfo = Schemas["ThreadInfo"];
export type ThreadItem = Schemas["ThreadItem"];
export type Usage = Schemas["Usage"];
export type WrittenFile = Schemas["WrittenFile"];
export type DeploymentItem = Schemas["DeploymentItem"];
export type DeletedThread = Schemas["DeletedThread"];

export type DeletedDeployment = Schemas["DeletedDeployment"] & {
  /** Where the files are kept if that was asked for. */
  snapshot_id?: string;
  snapshot_expires_at?: string;
};

export type Deployment = Omit<Schemas["Deployment"], "mcp_servers" | "skills"> & {
  mcp_servers: McpServer[];
  skills: Skill[];
  /** Why it could not be provisioned, where `status` is `error`. */
  error?: RunError;
};

export type DeploymentCreateParams = Given<
  Omit<Schemas["CreateDeployment"], "features" | "sandbox" | "mcp_servers" | "skills" | "runtime">
> & {
  runtime?: "hermes";
  features?: Given<Schemas["CreateFeatures"]>;
  sandbox?: Given<Omit<Schemas["CreateSandbox"], keyof SandboxExtras>> & SandboxExtras;
  /** At most 20, their names unique. */
  mcp_servers?: McpServerParams[];
  /** At most 20, their names unique. Of a `file` skill whose path is on this machine's disk, the text is sent along. */
  skills?: SkillParams[];
};

/** What is left out stays; arrays are replaced whole; in maps `null` removes a key. */
export type DeploymentUpdateParams = Partial<
  Omit<DeploymentCreateParams, "customer_id" | "runtime" | "features" | "secrets" | "metadata">
> & {
  features?: { [K in keyof Features]?: boolean | null };
  secrets?: Record<string, string | null>;
  metadata?: Record<string, string | null>;
};

/** A picture, a film or a sound of a message: from the public net, or from the workspace. */
export type Attachment = { type: Schemas["AttachmentType"] } & (
  { url: string; path?: never } | { path: string; url?: never }
);

export type MessageParams = Given<Omit<Schemas["SendMessage"], "attachments">> & {
  /** At most 20. */
  attachments?: Attachment[];
};
