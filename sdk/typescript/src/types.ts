/** The resources by their names, as the API's document has them. */

import type { components } from "./openapi.js";

type Schemas = components["schemas"];

/** The type without the `null`s of a body's fields, which mean the same as leaving them out; beneath them too. */
type Given<T> = T extends (infer Item)[]
  ? Given<Item>[]
  : T extends object
    ? { [K in keyof T]: Given<Exclude<T[K], null>> }
    : T;

export type DeletedFile = Schemas["DeletedFile"];
export type DeploymentStatus = Schemas["DeploymentStatus"];
export type Features = Schemas["Features"];
export type Fault = Schemas["Fault"];
export type FileEntry = Schemas["FileEntry"];
export type FileListing = Schemas["FileListing"];
/** A provider, its models that are known by name, and whether it can be called. */
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
/** What a run asks, or asked, a person. */
export type SteeringRequest = Schemas["SteeringRequest"];
export type SteeringStatus = Schemas["SteeringStatus"];
export type SteeringDecision = Schemas["SteeringDecision"];
export type SteeringRemember = Schemas["Remember"];
export type Approval = Schemas["Approval"];
/** What is kept of a deleted deployment's files. */
export type Snapshot = Schemas["Snapshot"];
export type SnapshotStatus = Schemas["SnapshotStatus"];
export type DeletedSnapshot = Schemas["DeletedSnapshot"];

export type DeploymentCreateParams = Given<
  Omit<Schemas["CreateDeployment"], "runtime" | "sandbox" | "skills" | "steering">
> & {
  runtime?: "hermes";
  sandbox?: SandboxParams;
  /** At most 20, their names unique. Of a `file` skill whose path is on this machine's disk, the text is sent along. */
  skills?: SkillParams[];
  steering?: SteeringParams;
};

/** What is left out stays; arrays are replaced whole; in maps `null` removes a key. */
export type DeploymentUpdateParams = Given<
  Omit<Schemas["UpdateDeployment"], "features" | "metadata" | "sandbox" | "secrets" | "skills" | "steering">
> & {
  /** `null` gives a feature its default back. */
  features?: Schemas["FeatureOptions"];
  metadata?: Record<string, string | null>;
  /** `type` and `persistent_filesystem` cannot be changed. */
  sandbox?: Omit<SandboxParams, "type" | "persistent_filesystem">;
  secrets?: Record<string, string | null>;
  skills?: SkillParams[];
  steering?: SteeringParams;
};

export type SandboxParams = Given<Omit<Schemas["SandboxOptions"], "egress">> & {
  egress?: { mode: Schemas["EgressMode"]; hosts?: string[] };
};

/** Of a request to a person; `expires_after_s: null` waits for ever. */
export type SteeringParams = Schemas["SteeringOptions"];

/** A skill as it is given: a SKILL.md in the workspace, its text, or where it is fetched from. */
export type SkillParams =
  | {
      source: "file";
      name: string;
      /** Relative to the workspace. Where this machine has such a file, its text is sent along. */
      path: string;
      content?: string;
    }
  | { source: "inline"; name: string; content: string }
  | { source: "url"; name: string; url: string };

export type SkillUpdateParams = Given<Schemas["ReplaceSkill"]>;
export type Skill = Schemas["SkillItem"];
export type SkillWithContent = Schemas["Skill"];
export type DeletedSkill = Schemas["DeletedSkill"];

export type ToolPermission = Schemas["Permission"];
export type Tool = Schemas["Tool"];
export type ToolUpdateParams = Given<Schemas["UpdateTool"]>;

export type McpServer = Schemas["McpServerItem"];
export type McpServerParams = Given<Schemas["NewMcpServer"]>;
/** `tools: null` allows all. */
export type McpServerUpdateParams = Schemas["UpdateMcpServer"];
export type DeletedMcpServer = Schemas["DeletedMcpServer"];

/** A picture, a film or a sound of a message: from the public net, or from the workspace. */
export type Attachment = { type: Schemas["AttachmentType"] } & (
  { url: string; path?: never } | { path: string; url?: never }
);

export type MessageParams = Given<Omit<Schemas["SendMessage"], "attachments">> & {
  /** At most 20. */
  attachments?: Attachment[];
};

/** A secret, without its value: no answer ever has it. */
export type Secret = Schemas["Secret"];
export type SecretParams = Given<Schemas["CreateSecret"]>;
/** `value` rotates it. */
export type SecretUpdateParams = Given<Schemas["UpdateSecret"]>;
export type DeletedSecret = Schemas["DeletedSecret"];

export type Scope = Schemas["Scope"];
export type Key = Schemas["Key"];
export type KeyParams = Given<Schemas["CreateKey"]>;
/** A key as it is shown once. */
export type CreatedKey = Schemas["CreatedKey"];
export type RevokedKey = Schemas["RevokedKey"];
/** A token for a browser, `herm_pk_…`, as it is shown once. */
export type Token = Schemas["CreatedToken"];
export type TokenParams = Given<Schemas["CreateToken"]>;
