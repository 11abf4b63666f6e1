import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import test, { after, before } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { TestServer, TOUR } from "../support/server.js";

const BROWSER = process.env["HERM_BROWSER"] ?? "chromium";
/**
 * Chromium flags for test machines. `--no-sandbox` lets Chromium run as root, and `--disable-dev-shm-usage` lets it run
 * with a small `/dev/shm`. The other flags turn off the user interface and features that the test does not need.
 */
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
];
/**
 * Error codes of a failed directory removal. They mean that another process created a file in the directory during the
 * removal.
 */
const NOT_EMPTY = ["ENOTEMPTY", "EBUSY", "EEXIST"];
const DIST = resolve("dist/esm");

/** The script of the test page. It uses the library with a browser token and posts its results to the test. */
const SCRIPT = `
import Herm from "/esm/index.js";
const { token, secret, url, id } = await (await fetch("/input")).json();
const report = result => fetch("/result", { method: "POST", body: JSON.stringify(result) });
try {
  const refused = (() => { try { new Herm({ apiKey: secret, baseURL: url }); return null; } catch (error) { return String(error); } })();
  const client = new Herm({ apiKey: token, baseURL: url });
  const kinds = new Set();
  const run = await client.deployments.messages.sendAndWait(id, { content: "Show me." }, { onEvent: event => kinds.add(event.type) });
  await client.files.write(id, "from-page.txt", "from a page");
  const text = await (await client.files.read(id, "from-page.txt")).text();
  const shown = await client.deployments.get(id);
  const changed = await client.deployments.update(id, { name: "Eve" }).then(() => null, error => error.status);
  const missing = await client.threads.get(id, "thr_01h455vb4pex5vsknk084sn02q").then(() => null, error => error.requestId);
  await report({ refused, text: run.text, kinds: [...kinds], file: text, prompt: shown.system_prompt ?? null, changed, missing });
} catch (error) {
  await report({ failed: String(error.stack ?? error) });
}
`;

interface Result {
  failed?: string;
  refused: string | null;
  text: string;
  kinds: string[];
  file: string;
  prompt: string | null;
  changed: number | null;
  missing: string | null;
}

let server: TestServer;
let pages: Server;
let browser: ChildProcess | undefined;
const profile = mkdtempSync(join(tmpdir(), "herm-browser-"));
let resolveResult: (result: Result) => void;
const result = new Promise<Result>(resolve => (resolveResult = resolve));
let input = "{}";

async function bodyOf(request: IncomingMessage): Promise<string> {
  let body = "";
  for await (const chunk of request) body += String(chunk);
  return body;
}

/** Kills the browser and its child processes. */
async function endBrowser(): Promise<void> {
  if (!browser?.pid) return;
  const running = browser.exitCode === null && browser.signalCode === null;
  const ended = running ? new Promise(resolve => browser?.once("exit", resolve)) : undefined;
  try {
    process.kill(-browser.pid, "SIGKILL");
  } catch {
    // There is nothing to kill, because the browser's processes have already ended.
  }
  await ended;
}

/**
 * Removes the browser's profile directory. Repeats the removal until it succeeds, because an exiting browser process
 * may still create files in it.
 */
async function removeProfile(): Promise<void> {
  for (;;) {
    try {
      rmSync(profile, { recursive: true, force: true });
      return;
    } catch (error) {
      if (!NOT_EMPTY.includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
      await sleep(100);
    }
  }
}

before(async () => {
  pages = createServer((request, response) => {
    const path = new URL(request.url ?? "/", "http://page").pathname;
    const module = /^\/esm\/([\w./-]+\.js)$/.exec(path)?.[1];
    if (path === "/result") {
      void bodyOf(request).then(body => resolveResult(JSON.parse(body) as Result));
      response.end();
    } else if (path === "/input") response.end(input);
    else if (module && !module.includes("..")) {
      response.setHeader("content-type", "text/javascript");
      response.end(readFileSync(join(DIST, module)));
    } else {
      response.setHeader("content-type", "text/html");
      response.end(`<!doctype html><script type="module">${SCRIPT}</script>`);
    }
  });
  await new Promise<void>(listening => pages.listen(0, "127.0.0.1", listening));
  const origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
  server = await TestServer.start({ HERM_CORS_ORIGINS: origin });
});

after(async () => {
  await endBrowser();
  pages?.close();
  pages?.closeAllConnections();
  await server?.remove();
  await removeProfile();
});

test("a page with a browser token can use its agent but cannot change it", async () => {
  const client = server.client();
  const { deployment_id: id } = await client.deployments.create(TOUR);
  const { token } = await client.tokens.create({
    deployment_id: id,
    scopes: ["messages:send", "deployments:read", "files:read", "files:write"],
  });
  input = JSON.stringify({ token, secret: server.key, url: server.url, id });
  const origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
  browser = spawn(BROWSER, [...FLAGS, `--user-data-dir=${profile}`, `${origin}/`], {
    stdio: "ignore",
    detached: true,
  });
  const ended = new Promise<never>((_, fail) => {
    browser?.once("error", error =>
      fail(new Error(`failed to start ${BROWSER}; install it or set HERM_BROWSER`, { cause: error })),
    );
    browser?.once("exit", code => fail(new Error(`${BROWSER} ended with ${code}`)));
  });
  const outcome = await Promise.race([result, ended]);
  assert.equal(outcome.failed, undefined);
  assert.match(outcome.refused ?? "", /readable by every visitor/);
  assert.match(outcome.text, /Done\./);
  for (const kind of ["token", "message", "tool_call", "tool_result", "run_status"])
    assert.ok(outcome.kinds.includes(kind), kind);
  assert.equal(outcome.file, "from a page");
  assert.equal(outcome.prompt, null);
  assert.equal(outcome.changed, 403);
  assert.match(outcome.missing ?? "", /^req_/);
});
