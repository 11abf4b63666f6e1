import { readFileSync } from "node:fs";

const METHODS = ["get", "post", "put", "patch", "delete"];

interface Operation {
  operationId: string;
}

const document = JSON.parse(readFileSync("../../openapi/v1.json", "utf8")) as {
  paths: Record<string, Record<string, Operation>>;
};

/**
 * Maps each operation of the OpenAPI document to its operation id. A key is the method and the path, with `{}` for each
 * path parameter, for example `GET /v1/deployments/{}`.
 */
export const OPERATIONS: ReadonlyMap<string, string> = new Map(
  Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item)
      .filter(([method]) => METHODS.includes(method))
      .map(([method, operation]) => [
        `${method.toUpperCase()} ${path.replaceAll(/\{[^}]*\}/g, "{}")}`,
        operation.operationId,
      ]),
  ),
);
