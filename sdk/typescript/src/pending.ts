/**
 * Types of what the API has and its document (openapi/v1.json) does not have yet. As soon as the document has one,
 * src/types.ts takes it from there and it goes from here; test/support/pending.ts says what is still awaited.
 */

/** What may be said of a sandbox beside its type. */
export type SandboxExtras = {
  type?: "docker" | "local" | "gvisor";
  image?: string;
  cpu?: number;
  memory_mb?: number;
  disk_mb?: number;
  idle_timeout_s?: number;
  egress?: { mode: "deny" | "allowlist" | "open"; hosts?: string[] };
};

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

/** What replaces a skill: all of it. */
export type SkillUpdateParams = Partial<SkillParams>;

export type Skill = {
  skill_id: string;
  name: string;
  source: "file" | "inline" | "url";
  path?: string;
  url?: string;
  status?: "ready" | "missing";
  description?: string | null;
  created_at?: string;
};

export type SkillWithContent = Skill & { content: string };

export type ToolPermission = "always_allow" | "always_ask" | "deny";

export type Tool = {
  name: string;
  /** `builtin`, or the name of the MCP server that has it. */
  origin: string;
  enabled: boolean;
  permission: ToolPermission;
};

export type ToolUpdateParams = { enabled?: boolean; permission?: ToolPermission };

export type McpServerParams = {
  /** Unique in its deployment. */
  name: string;
  url: string;
  /** The tools that may be used; all when left out. */
  tools?: string[];
  /** Values may hold `${NAME}`, bound in the deployment's `secrets`. */
  headers?: Record<string, string>;
  permission?: ToolPermission;
};

export type McpServerUpdateParams = {
  url?: string;
  tools?: string[] | null;
  headers?: Record<string, string | null>;
  permission?: ToolPermission | null;
};

export type McpServer = {
  name: string;
  url: string;
  tools?: string[] | null;
  permission?: ToolPermission | null;
  [more: string]: unknown;
};

export type SecretParams = {
  name: string;
  value: string;
  /** Chosen by you; unique in the account. */
  secret_id?: string;
  /** To whom the value may be sent; to nobody when left out. */
  allowed_hosts?: string[];
  /** Where in a request; `header` when left out. */
  inject?: ("header" | "query" | "body")[];
};

export type SecretUpdateParams = Partial<Omit<SecretParams, "secret_id">>;

/** A secret, without its value: no answer ever has it. */
export type Secret = {
  secret_id: string;
  name: string;
  allowed_hosts: string[];
  inject: string[];
  created_at: string;
};

export type Scope =
  "deployments:read" | "deployments:write" | "secrets:write" | "webhooks:write" | "usage:read" | "admin";

export type KeyParams = {
  name: string;
  scopes?: Scope[];
  /** Limits the key to one deployment. */
  deployment_id?: string;
  /** Limits the key to one customer's deployments. */
  customer_id?: string;
  expires_at?: string;
};

export type Key = {
  key_id: string;
  name: string;
  scopes: string[];
  created_at: string;
  expires_at?: string | null;
  [more: string]: unknown;
};

/** A key as it is shown once. */
export type CreatedKey = Key & { key: string };

export type TokenScope =
  "messages:send" | "steering:answer" | "threads:write" | "files:read" | "files:write" | "deployments:read";

export type TokenParams = {
  deployment_id: string;
  scopes?: TokenScope[];
  /** 15 minutes when left out. */
  expires_in_s?: number;
};

/** A token for a browser: `herm_pk_…`. */
export type Token = { token: string; expires_at: string; [more: string]: unknown };

export type Model = { [more: string]: unknown };

/** An answer to a removal. Its fields are for people. */
export type Removed = { status?: string; [more: string]: unknown };
