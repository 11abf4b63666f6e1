/** What belongs to the account rather than to one deployment. */

import { paged, type PagePromise } from "../page.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type {
  CreatedKey,
  DeletedSecret,
  Key,
  KeyParams,
  ModelProvider,
  RevokedKey,
  Secret,
  SecretParams,
  SecretUpdateParams,
  Token,
  TokenParams,
} from "../types.js";

export interface AccountListParams {
  /** Items of a page: 1 to 100, 20 when left out. */
  limit?: number;
  cursor?: string;
}

function listOf<T>(
  transport: Transport,
  from: string,
  params: AccountListParams,
  options: RequestOptions | undefined,
): PagePromise<T> {
  return paged(cursor =>
    transport.json({
      method: "GET",
      path: from,
      query: { ...params, cursor: cursor ?? params.cursor },
      options,
    }),
  );
}

/** Values that agents use without seeing them. No answer ever has one. */
export class Secrets {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Stores a value, for the hosts it may be sent to. */
  create(params: SecretParams, options?: RequestOptions): Promise<Secret> {
    return this.#transport.json({ method: "POST", path: "/v1/secrets", json: params, options });
  }

  /** The account's secrets, newest first. */
  list(params: AccountListParams = {}, options?: RequestOptions): PagePromise<Secret> {
    return listOf(this.#transport, "/v1/secrets", params, options);
  }

  /** Changes a secret; `value` rotates it. */
  update(secretId: string, params: SecretUpdateParams, options?: RequestOptions): Promise<Secret> {
    return this.#transport.json({
      method: "PATCH",
      path: path`/v1/secrets/${secretId}`,
      json: params,
      options,
    });
  }

  /** Removes a secret that no deployment uses any more. */
  delete(secretId: string, options?: RequestOptions): Promise<DeletedSecret> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/secrets/${secretId}`,
      options,
      whenGone: { secret_id: secretId, status: "deleted" },
    });
  }
}

/** The account's API keys. */
export class Keys {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Makes a key. This answer is the only one that has it. */
  create(params: KeyParams, options?: RequestOptions): Promise<CreatedKey> {
    return this.#transport.json({ method: "POST", path: "/v1/keys", json: params, options });
  }

  /** The account's keys, newest first, without their texts. */
  list(params: AccountListParams = {}, options?: RequestOptions): PagePromise<Key> {
    return listOf(this.#transport, "/v1/keys", params, options);
  }

  /** Revokes a key at once; streams that it opened end. */
  delete(keyId: string, options?: RequestOptions): Promise<RevokedKey> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/keys/${keyId}`,
      options,
      whenGone: { key_id: keyId, status: "revoked" },
    });
  }
}

/** Short-lived tokens for browsers, each for one deployment. */
export class Tokens {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Makes a token that a page can be given in place of a key. */
  create(params: TokenParams, options?: RequestOptions): Promise<Token> {
    return this.#transport.json({ method: "POST", path: "/v1/tokens", json: params, options });
  }
}

/** What `model` of a deployment may be. */
export class Models {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** The server's providers with the models that are known by name. */
  list(params: AccountListParams = {}, options?: RequestOptions): PagePromise<ModelProvider> {
    return listOf(this.#transport, "/v1/models", params, options);
  }
}
