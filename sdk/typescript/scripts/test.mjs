// Builds the library, then its tests and examples against it, and runs them.
//
//   npm test [-- PART_OF_A_TEST_FILE_NAME…]
//
// The tests in test/server run the real server. HERM_BINARY is the path of the server's binary. It defaults to the
// binary that `cargo build` creates.
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

// Relative paths in environment variables refer to the directory in which npm was called.
const callerDir = process.env.INIT_CWD ?? process.cwd();
process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const wanted = process.argv.slice(2);
const tests = ["unit", "server"]
    .flatMap(folder => readdirSync(`test/${folder}`).map(name => `${folder}/${name}`))
    .filter(file => file.endsWith(".test.ts"))
    .map(file => `build/test/${file.replace(/\.ts$/, ".js")}`)
    .filter(file => wanted.length === 0 || wanted.some(part => file.includes(part)));
if (tests.length === 0) {
    console.error(`test: no test file has ${wanted.join(" or ")} in its name`);
    process.exit(2);
}
// Finds the binary before the tests start, so that a missing binary is reported once and not by each test.
if (tests.some(file => file.startsWith("build/test/server/"))) process.env.HERM_BINARY = findBinary();

function findBinary() {
    const configured = process.env.HERM_BINARY;
    const target = process.env.CARGO_TARGET_DIR;
    const targetDir = target ? resolve(callerDir, target) : resolve("../../target");
    const candidates = configured
        ? [resolve(callerDir, configured)]
        : [join(targetDir, "debug", "herm"), join(targetDir, "release", "herm")];
    const binary = candidates.find(path => statSync(path, { throwIfNoEntry: false })?.isFile());
    if (binary) return binary;
    const variable = configured ? " (from HERM_BINARY)" : "";
    console.error(`test: the server's binary ${candidates[0]}${variable} does not exist.`);
    console.error("test: build it with `cargo build -p herm-cli`, or set HERM_BINARY to its path.");
    process.exit(1);
}

const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");

function run(...args) {
    const { status } = spawnSync(process.execPath, args, { stdio: "inherit" });
    if (status !== 0) process.exit(status ?? 1);
}

rmSync("build", { recursive: true, force: true });
run("scripts/build.mjs");
run(tsc, "--project", "tsconfig.test.json");

run("--enable-source-maps", "--test", ...tests);
