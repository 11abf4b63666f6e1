import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, before } from "node:test";

const TSC = createRequire(import.meta.url).resolve("typescript/bin/tsc");

/** The directory of an empty project in which the packed library is installed. */
let project: string;

function run(command: string, args: string[], cwd: string): string {
  return execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

before(() => {
  project = mkdtempSync(join(tmpdir(), "herm-sdk-package-"));
  const [packed] = JSON.parse(run("npm", ["pack", "--json", "--pack-destination", project], ".")) as {
    filename: string;
  }[];
  writeFileSync(join(project, "package.json"), '{ "name": "empty", "private": true }\n');
  // Installs the library from the packed file, because the npm registry has another package called `herm`.
  const install = ["install", `herm@file:./${packed?.filename}`, "--offline", "--no-audit", "--no-fund"];
  run("npm", install, project);
});
after(() => rmSync(project, { recursive: true, force: true }));

const USES = [
  ["module.mjs", 'import Herm, { APIError, Herm as Named } from "herm";'],
  ["common.cjs", 'const { default: Herm, APIError, Herm: Named } = require("herm");'],
] as const;

for (const [file, imports] of USES) {
  test(`${file} can load the packed library`, () => {
    const body = 'const client = new Herm({ apiKey: "k" });\n';
    const print =
      "console.log(Herm === Named, Herm.APIError === APIError, typeof client.deployments.create);\n";
    writeFileSync(join(project, file), `${imports}\n${body}${print}`);
    assert.equal(run(process.execPath, [file], project), "true true function\n");
  });
}

for (const [file, settings] of [
  ["module.mts", ["--module", "nodenext"]],
  ["common.cts", ["--module", "nodenext"]],
  ["bundled.ts", ["--module", "esnext", "--moduleResolution", "bundler"]],
] as const) {
  test(`${file} can use the types of the packed library without those of Node.js`, () => {
    const text = [
      'import Herm, { type HermEvent } from "herm";',
      'const client = new Herm({ apiKey: "k" });',
      "export async function main(): Promise<string> {",
      '  const { deployment_id } = await client.deployments.create({ customer_id: "a", name: "b", system_prompt: "c" });',
      "  for await (const event of client.deployments.events.stream(deployment_id)) {",
      '    if (event.type === "tool_call") return event.tool;',
      "    // @ts-expect-error: only tool calls have arguments",
      "    event.arguments;",
      "  }",
      "  // @ts-expect-error: the id must be a string",
      "  await client.deployments.get(1);",
      "  return deployment_id;",
      "}",
      'export const isEnd = (event: HermEvent) => event.type === "run_status" && event.status === "completed";',
      "export const isGone = (error: unknown) => error instanceof Herm.NotFoundError && error.details.length;",
    ];
    writeFileSync(join(project, file), `${text.join("\n")}\n`);
    const always = ["--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,dom,dom.iterable"];
    run(process.execPath, [TSC, ...always, ...settings, file], project);
  });
}

test("the package contains only the intended files", () => {
  const packed = join(project, "node_modules", "herm");
  assert.deepEqual(readdirSync(packed).sort(), ["README.md", "dist", "package.json", "src"]);
  const manifest = JSON.parse(readFileSync(join(packed, "package.json"), "utf8")) as Record<string, unknown>;
  assert.deepEqual(
    [manifest["private"], manifest["dependencies"]],
    [true, undefined],
    "cannot be published by accident",
  );
});

test("no Node.js module is imported statically", () => {
  const folder = join(project, "node_modules", "herm", "dist");
  const scripts = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter(name =>
    name.endsWith(".js"),
  );
  assert.ok(scripts.length > 20);
  for (const name of scripts) {
    const text = readFileSync(join(folder, name), "utf8");
    const imported = /^(?:import|export)\b.*\bfrom "([^"]+)"|^import "([^"]+)"|require\("([^"]+)"\)/gm;
    const imports = [...text.matchAll(imported)].map(found => found[1] ?? found[2] ?? found[3] ?? "");
    assert.deepEqual(
      imports.filter(from => !from.startsWith(".")),
      [],
      name,
    );
  }
});
