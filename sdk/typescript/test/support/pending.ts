/**
 * What this library has and the server's document does not describe yet. Once it does, a test asks to take it from
 * here; the types of src/pending.ts go with it. When nothing is left, this file goes, and `isDocumented` with it.
 */
export const PENDING: readonly string[] = [
  "POST /v1/secrets",
  "GET /v1/secrets",
  "PATCH /v1/secrets/{}",
  "DELETE /v1/secrets/{}",
  "POST /v1/keys",
  "GET /v1/keys",
  "DELETE /v1/keys/{}",
  "POST /v1/tokens",
];
