import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { binary } from "./server";

/** A scripted model that speaks Chat Completions (caesarion dev scripted-llm). */
export interface ScriptedModel {
  /** Environment that makes a server use it. */
  env: Record<string, string>;
  stop(): Promise<void>;
}

export const demo = fileURLToPath(new URL("../../../examples/scripted/demo.yaml", import.meta.url));

/** Plays a script: its text, or by default the demonstration's file. */
export async function startModel(script?: string): Promise<ScriptedModel> {
  const dir = await mkdtemp(join(tmpdir(), "caesarion-model-"));
  let file = demo;
  if (script !== undefined) {
    file = join(dir, "script.yaml");
    await writeFile(file, script);
  }
  const child = spawn(binary(), ["dev", "scripted-llm", file, "--listen", "127.0.0.1:0"], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const url = await new Promise<string>((done, fail) => {
    let said = "";
    const read = (data: Buffer) => {
      said += data.toString();
      const found = /http:\/\/127\.0\.0\.1:\d+(\/v1)?/.exec(said);
      if (found) done(found[1] ? found[0] : `${found[0]}/v1`);
    };
    child.stdout.on("data", read);
    child.stderr.on("data", read);
    child.once("exit", (code) => fail(new Error(`the scripted model ended (${code}): ${said}`)));
  });
  child.removeAllListeners("exit");
  return {
    env: { OPENAI_API_KEY: "none", OPENAI_BASE_URL: url, OPENAI_MODEL: "scripted" },
    async stop() {
      const gone = new Promise<void>((done) => child.once("exit", () => done()));
      child.kill("SIGTERM");
      await gone;
      await rm(dir, { recursive: true, force: true });
    },
  };
}
