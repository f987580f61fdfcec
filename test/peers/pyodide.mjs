// Runs Python in Pyodide, which WebAssembly isolates: one JSON object a line on
// standard input, answers on standard output.
//
//   {"code": "print(1)"}  ->  {"text": "1\n"}*, then {"done": true, "result": "…"} or {"done": true, "error": "…"}
//
// A line without code is an order to end.
import { createInterface } from "node:readline";
import { writeSync } from "node:fs";
import { loadPyodide } from "pyodide";

const say = (value) => {
  let bytes = Buffer.from(`${JSON.stringify(value)}\n`);
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(writeSync(1, bytes));
    } catch (err) {
      if (err.code !== "EAGAIN") throw err;
    }
  }
};

const pyodide = await loadPyodide();
const decoder = new TextDecoder();
pyodide.setStdout({ write: (bytes) => (say({ text: decoder.decode(bytes, { stream: true }) }), bytes.length) });
say({ ready: true });

for await (const line of createInterface({ input: process.stdin })) {
  const { code } = JSON.parse(line);
  if (code === undefined) break;
  try {
    const result = pyodide.runPython(code);
    say({ done: true, result: result === undefined ? "" : String(result) });
  } catch (err) {
    say({ done: true, error: String(err).trim().split("\n").at(-1) });
  }
}
process.exit(0);
