/**
 * Types of what the API has and its document (openapi/v1.json) does not have yet. As soon as the document has one,
 * src/types.ts takes it from there and it goes from here; test/support/pending.ts says what is still awaited.
 */

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

/** An answer to a removal. Its fields are for people. */
export type Removed = { status?: string; [more: string]: unknown };
