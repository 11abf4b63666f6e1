import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { resolve } from "node:path";
import test, { after, before } from "node:test";
import { promisify } from "node:util";
import { TestServer } from "../support/server.js";

/** Maps the name of each example to patterns that its output must match. */
const EXAMPLES: Record<string, { prints: RegExp[] }> = {
  "first-agent": {
    prints: [/The agent says: .*Done\./, /The file says: Hello/, /Ada is ready/, /The agent is deleted\./],
  },
  "send-and-stream": {
    prints: [
      /\[write_file \{/,
      /\[shell took \d+ ms\]/,
      /messages, the first: .*"role":"user"/,
      /3 tool calls/,
      /model demo/,
    ],
  },
  threads: { prints: [/completed, completed/, /Invoices of November: user, agent/, /0 messages, idle/] },
  everything: {
    prints: [
      /demo: demo\/tour/,
      /refunds is ready, tone is ready/,
      /Ada Lovelace: \{"plan":"pro","tier":"gold"\}, 0 MCP/,
      /unchanged since: true/,
    ],
  },
  files: {
    prints: [
      /stream\.txt: 13 bytes/,
      /bread,3/,
      /from byte 9 on: bread/,
      /3 bytes of a logo/,
      /0 entries are left/,
    ],
  },
  "skills-and-tools": {
    prints: [/Always ask a person/, /refunds: How refunds are handled/, /shell: always_ask/, /shop: https:/],
  },
  account: {
    prints: [/Shop token: mcp\.shop\.example/, /0 deployments/, /Done\./],
  },
};

let server: TestServer;
before(async () => (server = await TestServer.start()));
after(() => server?.remove());

test("every example has an entry in this test", () => {
  const files = readdirSync("examples").filter(name => name.endsWith(".ts"));
  assert.deepEqual(
    files.sort(),
    Object.keys(EXAMPLES)
      .map(name => `${name}.ts`)
      .sort(),
  );
});

for (const [name, { prints }] of Object.entries(EXAMPLES)) {
  test(`the example ${name} prints the expected output`, async () => {
    const env = { PATH: process.env["PATH"], HERM_API_KEY: server.key, HERM_BASE_URL: server.url };
    const script = resolve(`build/examples/${name}.js`);
    const { stdout } = await promisify(execFile)(process.execPath, [script], { cwd: "examples", env });
    for (const pattern of prints) assert.match(stdout, pattern);
  });
}
