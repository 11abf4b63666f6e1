/** Resources that belong to an account and not to one deployment: secrets, keys, browser tokens and models. */

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
  /** Maximum number of items per page, 1 to 100. Defaults to 20. */
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

/** Secrets: values that agents can use without seeing them. No method returns a secret's value. */
export class Secrets {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Creates a secret from a value and the hosts that may receive it. */
  create(params: SecretParams, options?: RequestOptions): Promise<Secret> {
    return this.#transport.json({ method: "POST", path: "/v1/secrets", json: params, options });
  }

  /** Lists the account's secrets, newest first. */
  list(params: AccountListParams = {}, options?: RequestOptions): PagePromise<Secret> {
    return listOf(this.#transport, "/v1/secrets", params, options);
  }

  /** Changes a secret. A new `value` replaces the old one. */
  update(secretId: string, params: SecretUpdateParams, options?: RequestOptions): Promise<Secret> {
    return this.#transport.json({
      method: "PATCH",
      path: path`/v1/secrets/${secretId}`,
      json: params,
      options,
    });
  }

  /** Deletes a secret. Throws `ConflictError` if a deployment uses the secret. */
  delete(secretId: string, options?: RequestOptions): Promise<DeletedSecret> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/secrets/${secretId}`,
      options,
      whenDeleted: { secret_id: secretId, status: "deleted" },
    });
  }
}

/** The API keys of the account. */
export class Keys {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Creates an API key. The result contains the key value (`herm_sk_…`), which no other method returns. */
  create(params: KeyParams, options?: RequestOptions): Promise<CreatedKey> {
    return this.#transport.json({ method: "POST", path: "/v1/keys", json: params, options });
  }

  /** Lists the account's API keys, newest first, without the key values. */
  list(params: AccountListParams = {}, options?: RequestOptions): PagePromise<Key> {
    return listOf(this.#transport, "/v1/keys", params, options);
  }

  /** Revokes an API key immediately. The server closes the streams that were opened with it. */
  delete(keyId: string, options?: RequestOptions): Promise<RevokedKey> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/keys/${keyId}`,
      options,
      whenDeleted: { key_id: keyId, status: "revoked" },
    });
  }
}

/** Browser tokens: short-lived keys for web pages, each restricted to one deployment. */
export class Tokens {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Creates a browser token, which a web page uses instead of an API key. */
  create(params: TokenParams, options?: RequestOptions): Promise<Token> {
    return this.#transport.json({ method: "POST", path: "/v1/tokens", json: params, options });
  }
}

/** The models that deployments can use. */
export class Models {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Lists the server's model providers, each with the models that the server knows. */
  list(params: AccountListParams = {}, options?: RequestOptions): PagePromise<ModelProvider> {
    return listOf(this.#transport, "/v1/models", params, options);
  }
}
