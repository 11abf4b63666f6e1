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
/** A page of its own and nothing else: no sandbox, as tests run as root; no talk with the browser's maker. */
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
/** What a folder says that got a file while it was removed. */
const IS_FILLED = ["ENOTEMPTY", "EBUSY", "EEXIST"];
const DIST = resolve("dist/esm");

/** What a page does with a token, as a script of that page. */
const SCRIPT = `
import Herm from "/esm/index.js";
const { token, secret, url, id } = await (await fetch("/given")).json();
const tell = result => fetch("/result", { method: "POST", body: JSON.stringify(result) });
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
  await tell({ refused, text: run.text, kinds: [...kinds], file: text, prompt: shown.system_prompt ?? null, changed, missing });
} catch (error) {
  await tell({ failed: String(error.stack ?? error) });
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
let tellResult: (result: Result) => void;
const result = new Promise<Result>(tell => (tellResult = tell));
let given = "{}";

async function bodyOf(request: IncomingMessage): Promise<string> {
  let body = "";
  for await (const piece of request) body += String(piece);
  return body;
}

/** Ends the browser with the processes it has begun. */
async function endBrowser(): Promise<void> {
  if (!browser?.pid) return;
  const running = browser.exitCode === null && browser.signalCode === null;
  const ended = running ? new Promise(resolve => browser?.once("exit", resolve)) : undefined;
  try {
    process.kill(-browser.pid, "SIGKILL");
  } catch {
    // All of them have ended.
  }
  await ended;
}

/** Removes its files; a process that is still on its way out may add one meanwhile, until it is gone. */
async function removeProfile(): Promise<void> {
  for (;;) {
    try {
      rmSync(profile, { recursive: true, force: true });
      return;
    } catch (error) {
      if (!IS_FILLED.includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
      await sleep(100);
    }
  }
}

before(async () => {
  pages = createServer((request, response) => {
    const path = new URL(request.url ?? "/", "http://page").pathname;
    const module = /^\/esm\/([\w./-]+\.js)$/.exec(path)?.[1];
    if (path === "/result") {
      void bodyOf(request).then(body => tellResult(JSON.parse(body) as Result));
      response.end();
    } else if (path === "/given") response.end(given);
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

test("a page with a browser token talks to its agent, and cannot change it", async () => {
  const client = server.client();
  const { deployment_id: id } = await client.deployments.create(TOUR);
  const { token } = await client.tokens.create({
    deployment_id: id,
    scopes: ["messages:send", "deployments:read", "files:read", "files:write"],
  });
  given = JSON.stringify({ token, secret: server.key, url: server.url, id });
  const origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
  browser = spawn(BROWSER, [...FLAGS, `--user-data-dir=${profile}`, `${origin}/`], {
    stdio: "ignore",
    detached: true,
  });
  const ended = new Promise<never>((_, fail) => {
    browser?.once("error", error =>
      fail(new Error(`failed to start ${BROWSER}: install it`, { cause: error })),
    );
    browser?.once("exit", code => fail(new Error(`${BROWSER} ended with ${code}`)));
  });
  const got = await Promise.race([result, ended]);
  assert.equal(got.failed, undefined);
  assert.match(got.refused ?? "", /readable by every visitor/);
  assert.match(got.text, /Done\./);
  for (const kind of ["token", "message", "tool_call", "tool_result", "run_status"])
    assert.ok(got.kinds.includes(kind), kind);
  assert.equal(got.file, "from a page");
  assert.equal(got.prompt, null);
  assert.equal(got.changed, 403);
  assert.match(got.missing ?? "", /^req_/);
});
