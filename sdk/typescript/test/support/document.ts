import { readFileSync } from "node:fs";
import { PENDING } from "./pending.js";

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

/** Whether the server has these operations, each of which it has or will have. */
export function isDocumented(...operations: string[]): boolean {
  for (const operation of operations) {
    if (!OPERATIONS.has(operation) && !PENDING.includes(operation))
      throw new Error(`there is no ${operation}`);
  }
  return operations.every(operation => OPERATIONS.has(operation));
}
