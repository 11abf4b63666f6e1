/** Types of the API's resources and request bodies, derived from the OpenAPI document. */

import type { components } from "./openapi.js";

type Schemas = components["schemas"];

/**
 * Removes `null` from the types of all fields, including nested ones. Omitting a field has the same effect as sending
 * `null`.
 */
type NonNullFields<T> = T extends (infer Item)[]
  ? NonNullFields<Item>[]
  : T extends object
    ? { [K in keyof T]: NonNullFields<Exclude<T[K], null>> }
    : T;

export type DeletedFile = Schemas["DeletedFile"];
export type DeploymentStatus = Schemas["DeploymentStatus"];
export type Features = Schemas["Features"];
/** One invalid field of a request: its path and a message. */
export type FieldError = NonNullable<Schemas["ErrorBody"]["details"]>[number];
export type FileEntry = Schemas["FileEntry"];
export type FileListing = Schemas["FileListing"];
/** A model provider: the names of its known models, and whether the server can use it. */
export type ModelProvider = Schemas["ModelProvider"];
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

export type DeletedDeployment = Schemas["DeletedDeployment"];
export type Deployment = Schemas["Deployment"];
/** A steering request, with which a run asks a person to approve a tool call or to answer a question. */
export type SteeringRequest = Schemas["SteeringRequest"];
export type SteeringStatus = Schemas["SteeringStatus"];
export type SteeringDecision = Schemas["SteeringDecision"];
export type SteeringRemember = Schemas["Remember"];
export type Approval = Schemas["Approval"];
/** A snapshot: the stored files of a deleted deployment. */
export type Snapshot = Schemas["Snapshot"];
export type SnapshotStatus = Schemas["SnapshotStatus"];
export type DeletedSnapshot = Schemas["DeletedSnapshot"];

export type DeploymentCreateParams = NonNullFields<
  Omit<Schemas["CreateDeployment"], "runtime" | "sandbox" | "skills" | "steering">
> & {
  runtime?: "hermes";
  sandbox?: SandboxParams;
  /**
   * A maximum of 20 skills. Their names must be unique. For a skill with source `file`, the text of the file is sent
   * with the request if the file exists on this machine.
   */
  skills?: SkillParams[];
  steering?: SteeringParams;
};

/**
 * The changes to a deployment. Omitted fields stay unchanged. Arrays are replaced as a whole. In maps, the value `null`
 * removes an entry.
 */
export type DeploymentUpdateParams = NonNullFields<
  Omit<Schemas["UpdateDeployment"], "features" | "metadata" | "sandbox" | "secrets" | "skills" | "steering">
> & {
  /** The features to enable or disable. `null` resets a feature to its default. */
  features?: Schemas["FeatureOptions"];
  metadata?: Record<string, string | null>;
  /** The sandbox settings, except `type` and `persistent_filesystem`, which cannot be changed. */
  sandbox?: Omit<SandboxParams, "type" | "persistent_filesystem">;
  secrets?: Record<string, string | null>;
  skills?: SkillParams[];
  steering?: SteeringParams;
};

export type SandboxParams = NonNullFields<Omit<Schemas["SandboxOptions"], "egress">> & {
  egress?: { mode: Schemas["EgressMode"]; hosts?: string[] };
};

/** The expiry of steering requests. With `expires_after_s: null`, they never expire. */
export type SteeringParams = Schemas["SteeringOptions"];

/**
 * A skill and its source: a SKILL.md file in the workspace, the text itself, or a URL from which the server fetches the
 * text.
 */
export type SkillParams =
  | {
      source: "file";
      name: string;
      /**
       * The path of the skill's file, relative to the workspace. If this machine has a file at the same path, the
       * file's text is sent with the request.
       */
      path: string;
      content?: string;
    }
  | { source: "inline"; name: string; content: string }
  | { source: "url"; name: string; url: string };

export type SkillUpdateParams = NonNullFields<Schemas["ReplaceSkill"]>;
export type Skill = Schemas["SkillItem"];
export type SkillWithContent = Schemas["Skill"];
export type DeletedSkill = Schemas["DeletedSkill"];

export type ToolPermission = Schemas["Permission"];
export type Tool = Schemas["Tool"];
export type ToolUpdateParams = NonNullFields<Schemas["UpdateTool"]>;

export type McpServer = Schemas["McpServerItem"];
export type McpServerParams = NonNullFields<Schemas["NewMcpServer"]>;
/** The changes to an MCP server. With `tools: null`, the agent may use all tools of the server. */
export type McpServerUpdateParams = Schemas["UpdateMcpServer"];
export type DeletedMcpServer = Schemas["DeletedMcpServer"];

/**
 * An attachment of a message: an image, a video or an audio file, given by a public URL or by a path in the workspace.
 */
export type Attachment = { type: Schemas["AttachmentType"] } & (
  { url: string; path?: never } | { path: string; url?: never }
);

export type MessageParams = NonNullFields<Omit<Schemas["SendMessage"], "attachments">> & {
  /** A maximum of 20 attachments. */
  attachments?: Attachment[];
};

/** A secret, without its value, which the API never returns. */
export type Secret = Schemas["Secret"];
export type SecretParams = NonNullFields<Schemas["CreateSecret"]>;
/** The changes to a secret. A new `value` replaces the old one. */
export type SecretUpdateParams = NonNullFields<Schemas["UpdateSecret"]>;
export type DeletedSecret = Schemas["DeletedSecret"];

export type Scope = Schemas["Scope"];
export type Key = Schemas["Key"];
export type KeyParams = NonNullFields<Schemas["CreateKey"]>;
/** A new API key with the key value (`herm_sk_…`), which no other response contains. */
export type CreatedKey = Schemas["CreatedKey"];
export type RevokedKey = Schemas["RevokedKey"];
/** A new browser token with the token value (`herm_pk_…`), which no other response contains. */
export type Token = Schemas["CreatedToken"];
export type TokenParams = NonNullFields<Schemas["CreateToken"]>;
