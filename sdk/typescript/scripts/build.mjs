// Compiles src/ to ES modules and to CommonJS, each with type declarations.
import { spawnSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");

rmSync("dist", { recursive: true, force: true });
for (const [project, kind, folder] of [
    ["tsconfig.json", "module", "esm"],
    ["tsconfig.cjs.json", "commonjs", "cjs"],
]) {
    const { status } = spawnSync(process.execPath, [tsc, "--project", project], { stdio: "inherit" });
    if (status !== 0) process.exit(status ?? 1);
    // Sets the module type of this directory. Without it, Node.js would load the CommonJS files as ES modules, because
    // the package has the type "module".
    writeFileSync(`dist/${folder}/package.json`, `{ "type": "${kind}", "sideEffects": false }\n`);
}
