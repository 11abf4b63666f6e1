/** What the place this runs in offers: environment variables, a file system, a browser's page. All of it may be missing. */

import { HermError } from "./errors.js";

/** Largest file that is sent along with a skill: what the server accepts as a body. */
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

/** An environment variable, without blanks around it; `undefined` where it is empty or there are none. */
export function variable(name: string): string | undefined {
  try {
    return process()?.env?.[name]?.trim() || undefined;
  } catch {
    // Deno asks its user first, who may say no.
    return undefined;
  }
}

/** Whether this is a browser's page, whose visitors can read everything in it. */
export function isBrowser(): boolean {
  return typeof window !== "undefined" && typeof window.document !== "undefined";
}

async function fileSystem(): Promise<FileSystem | undefined> {
  const host = process();
  if (isBrowser() || !host?.versions?.node) return undefined;
  const name = "node:fs/promises";
  if (host.getBuiltinModule) return host.getBuiltinModule(name) as FileSystem;
  // The name is a variable and the comments are there so that no bundler looks for the module.
  return (await import(/* webpackIgnore: true */ /* @vite-ignore */ name).catch(() => undefined)) as
    FileSystem | undefined;
}

/** The text of a file on this machine's disk; `undefined` where there is no such file, or no disk. */
export async function readLocalFile(path: string): Promise<string | undefined> {
  const files = await fileSystem();
  if (!files) return undefined;
  try {
    const stat = await files.stat(path);
    if (!stat.isFile()) return undefined;
    if (stat.size > MAX_SENT_FILE_BYTES) {
      throw new HermError(`${path} is larger than ${MAX_SENT_FILE_BYTES} bytes, the most that is sent along`);
    }
    return await files.readFile(path, "utf8");
  } catch (error) {
    const code = (error as { code?: string }).code;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    if (error instanceof HermError) throw error;
    throw new HermError(`failed to read ${path}, which exists on this machine`, { cause: error });
  }
}
