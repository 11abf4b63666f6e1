/**
 * Reads environment variables and local files, and detects browsers. Some JavaScript runtimes have neither environment
 * variables nor a file system.
 */

import { HermError } from "./errors.js";

/**
 * Maximum size in bytes of a local skill file that is sent to the server. It equals the server's default limit for
 * request bodies. If a file is larger, an error is thrown.
 */
const MAX_SENT_FILE_BYTES = 1024 * 1024;

interface FileSystem {
  stat(path: string): Promise<{ isFile(): boolean; size: number }>;
  readFile(path: string, encoding: "utf8"): Promise<string>;
}

interface Process {
  env?: Record<string, string | undefined>;
  versions?: { node?: string };
  getBuiltinModule?: (name: string) => unknown;
}

function process(): Process | undefined {
  return (globalThis as { process?: Process }).process;
}

/**
 * Returns the value of an environment variable without surrounding white space, or `undefined` if the variable is
 * empty, not set or not readable.
 */
export function variable(name: string): string | undefined {
  try {
    return process()?.env?.[name]?.trim() || undefined;
  } catch {
    // Deno throws if the program has no permission to read the variable.
    return undefined;
  }
}

/** Returns true if the code runs in a browser page. The page's visitors can read everything in it, including keys. */
export function isBrowser(): boolean {
  return typeof window !== "undefined" && typeof window.document !== "undefined";
}

async function fileSystem(): Promise<FileSystem | undefined> {
  const host = process();
  if (isBrowser() || !host?.versions?.node) return undefined;
  const name = "node:fs/promises";
  if (host.getBuiltinModule) return host.getBuiltinModule(name) as FileSystem;
  // The module name is in a variable and the call contains two comments for bundlers, so that they do not include the
  // Node.js module in code for browsers.
  return (await import(/* webpackIgnore: true */ /* @vite-ignore */ name).catch(() => undefined)) as
    FileSystem | undefined;
}

/** Returns the text of a local file, or `undefined` if the file does not exist or the runtime has no file system. */
export async function readLocalFile(path: string): Promise<string | undefined> {
  const files = await fileSystem();
  if (!files) return undefined;
  try {
    const stat = await files.stat(path);
    if (!stat.isFile()) return undefined;
    if (stat.size > MAX_SENT_FILE_BYTES) {
      throw new HermError(
        `The file ${path} is larger than ${MAX_SENT_FILE_BYTES} bytes, the maximum size of a skill file.`,
      );
    }
    return await files.readFile(path, "utf8");
  } catch (error) {
    const code = (error as { code?: string }).code;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    if (error instanceof HermError) throw error;
    throw new HermError(`Failed to read the local file ${path}.`, { cause: error });
  }
}
