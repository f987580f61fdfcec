import { execFile, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const root = fileURLToPath(new URL("../../..", import.meta.url));

/** A provider of OpenID Connect: the real issuer of the server's own tests. */
export interface Issuer {
  readonly url: string;
  /** Environment and settings that make a server take it, with the given ones besides. */
  env: Record<string, string>;
  config(more?: string): string;
  /** Says who signs in next: the claims of the ID token; null: nobody is let in. */
  next(claims: Record<string, unknown> | null): Promise<void>;
  stop(): Promise<void>;
}

export async function startIssuer(): Promise<Issuer> {
  const dir = await mkdtemp(join(tmpdir(), "caesarion-issuer-"));
  const binary = join(dir, "issuer");
  await promisify(execFile)("go", ["build", "-o", binary, "./web/e2e/issuer"], {
    cwd: root,
    env: { ...process.env, CGO_ENABLED: "0" },
  });
  const child = spawn(binary, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done) throw new Error("the issuer ended");
    return value as string;
  };
  const url = await read();
  return {
    url,
    env: { ISSUER_SECRET: "secret of the client" },
    config: (more = "") => `discover_models: false
sign_in:
  providers:
    - name: company
      title: Company
      issuer: ${url}
      client_id: caesarion
      client_secret_env: ISSUER_SECRET
      organisation: Acme
${more.replace(/^/gm, "      ")}
`,
    async next(claims) {
      child.stdin.write(`${JSON.stringify(claims === null ? {} : { claims })}\n`);
      await read();
    },
    async stop() {
      const gone = new Promise<void>((done) => child.once("exit", () => done()));
      child.stdin.end();
      await gone;
      await rm(dir, { recursive: true, force: true });
    },
  };
}
