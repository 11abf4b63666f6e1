import { readFileSync } from "node:fs";

const METHODS = ["get", "post", "put", "patch", "delete"];

interface Operation {
  operationId: string;
}

const document = JSON.parse(readFileSync("../../openapi/v1.json", "utf8")) as {
  paths: Record<string, Record<string, Operation>>;
};

/** The server's operations: `METHOD /path`, with `{}` for each of the path's parameters, to the operation's id. */
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
