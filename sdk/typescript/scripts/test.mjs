// Builds the library, then its tests and examples against it, and runs them.
//
//   npm test [-- PART OF A FILE'S NAME…]
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");

function run(...args) {
    const { status } = spawnSync(process.execPath, args, { stdio: "inherit" });
    if (status !== 0) process.exit(status ?? 1);
}

rmSync("build", { recursive: true, force: true });
run("scripts/build.mjs");
run(tsc, "--project", "tsconfig.test.json");

const wanted = process.argv.slice(2);
const tests = ["unit", "server"]
    .flatMap(folder => readdirSync(`build/test/${folder}`).map(name => `build/test/${folder}/${name}`))
    .filter(file => file.endsWith(".test.js"))
    .filter(file => wanted.length === 0 || wanted.some(part => file.includes(part)));
if (tests.length === 0) {
    console.error(`test: no file of tests has ${wanted.join(" or ")} in its name`);
    process.exit(2);
}
run("--enable-source-maps", "--test", ...tests);
