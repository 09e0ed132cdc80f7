// The official TypeScript SDK as a client, v1 or v2 (legacy by default, or `auto`); see `drive` in test_clients.py for
// what it reads and writes.
import { readFileSync } from "node:fs";

const [version, url, token] = process.argv.slice(2);
const info = { name: `typescript-${version}`, version: "1" };
const { Client, StreamableHTTPClientTransport } =
  version === "v1"
    ? {
        ...(await import("@modelcontextprotocol/sdk/client/index.js")),
        ...(await import("@modelcontextprotocol/sdk/client/streamableHttp.js")),
      }
    : await import("@modelcontextprotocol/client");

const options = version === "v2-auto" ? { versionNegotiation: { mode: "auto" } } : {};
const client = new Client(info, options);
const headers = { Authorization: `Bearer ${token}` };
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const answers = [];
for (const [name, args] of JSON.parse(readFileSync(0, "utf8"))) {
  const progress = [];
  const more = { onprogress: (step) => progress.push(step.progress) };
  const params = { name, arguments: args };
  try {
    const result = await (version === "v1" ? client.callTool(params, undefined, more) : client.callTool(params, more));
    answers.push({ isError: Boolean(result.isError), content: result.content, progress });
  } catch (error) {
    answers.push({ code: error.code ?? null, message: error.message });
  }
}
await client.close();
process.stdout.write(JSON.stringify({ tools, answers }));
