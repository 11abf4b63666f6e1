// Builds the library, then its tests and examples against it, and runs them.
//
//   npm test [-- PART OF A FILE'S NAME…]
//
// The tests below test/server run the real server: the binary that HERM_BINARY names, else what `cargo build` made.
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

// Where npm was called: a relative path in the environment is meant from there.
const calledIn = process.env.INIT_CWD ?? process.cwd();
process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const wanted = process.argv.slice(2);
const tests = ["unit", "server"]
    .flatMap(folder => readdirSync(`test/${folder}`).map(name => `${folder}/${name}`))
    .filter(file => file.endsWith(".test.ts"))
    .map(file => `build/test/${file.replace(/\.ts$/, ".js")}`)
    .filter(file => wanted.length === 0 || wanted.some(part => file.includes(part)));
if (tests.length === 0) {
    console.error(`test: no file of tests has ${wanted.join(" or ")} in its name`);
    process.exit(2);
}
// Said here, once, and not by each test that needs it.
if (tests.some(file => file.startsWith("build/test/server/"))) process.env.HERM_BINARY = findBinary();

function findBinary() {
    const named = process.env.HERM_BINARY;
    const target = process.env.CARGO_TARGET_DIR;
    const folder = target ? resolve(calledIn, target) : resolve("../../target");
    const places = named
        ? [resolve(calledIn, named)]
        : [join(folder, "debug", "herm"), join(folder, "release", "herm")];
    const found = places.find(place => statSync(place, { throwIfNoEntry: false })?.isFile());
    if (found) return found;
    const looked = named ? `HERM_BINARY names ${places[0]}, which is not there` : `there is no ${places[0]}`;
    console.error(`test: the tests need the server's binary, and ${looked}.`);
    console.error("test: build it with `cargo build -p herm-cli`, or set HERM_BINARY to the path of one.");
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
