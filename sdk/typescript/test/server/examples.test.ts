import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { resolve } from "node:path";
import test, { after, before } from "node:test";
import { promisify } from "node:util";
import { TestServer } from "../support/server.js";

/** Each example, and what it says. */
const EXAMPLES: Record<string, { says: RegExp[] }> = {
  "first-agent": {
    says: [/The agent says: .*Done\./, /The file says: Hello/, /Ada is ready/, /The agent is gone\./],
  },
  "send-and-stream": {
    says: [
      /\[write_file \{/,
      /\[shell took \d+ ms\]/,
      /messages, the first: .*"role":"user"/,
      /3 tool calls/,
      /model demo/,
    ],
  },
  threads: { says: [/completed, completed/, /Invoices of November: user, agent/, /0 messages, idle/] },
  everything: {
    says: [
      /demo: demo\/tour/,
      /refunds is ready, tone is ready/,
      /Ada Lovelace: \{"plan":"pro","tier":"gold"\}, 0 MCP/,
      /unchanged since: true/,
    ],
  },
  files: {
    says: [
      /stream\.txt: 13 bytes/,
      /bread,3/,
      /from byte 9 on: bread/,
      /3 bytes of a logo/,
      /0 entries are left/,
    ],
  },
  "skills-and-tools": {
    says: [/Always ask a person/, /refunds: How refunds are handled/, /shell: always_ask/, /shop: https:/],
  },
  account: {
    says: [/Shop token: mcp\.shop\.example/, /0 deployments/, /Done\./],
  },
};

let server: TestServer;
before(async () => (server = await TestServer.start()));
after(() => server?.remove());

test("each example is run here", () => {
  const files = readdirSync("examples").filter(name => name.endsWith(".ts"));
  assert.deepEqual(
    files.sort(),
    Object.keys(EXAMPLES)
      .map(name => `${name}.ts`)
      .sort(),
  );
});

for (const [name, { says }] of Object.entries(EXAMPLES)) {
  test(`the example ${name} does what it says`, async () => {
    const env = { PATH: process.env["PATH"], HERM_API_KEY: server.key, HERM_BASE_URL: server.url };
    const script = resolve(`build/examples/${name}.js`);
    const { stdout } = await promisify(execFile)(process.execPath, [script], { cwd: "examples", env });
    for (const said of says) assert.match(stdout, said);
  });
}
