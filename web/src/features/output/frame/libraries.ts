import { send } from "@/api/client";

const loading = new Map<string, Promise<string>>();

/** The text of a chart library, fetched on first use; a frame may load nothing itself. */
export function library(name: "plotly" | "vega"): Promise<string> {
  let text = loading.get(name);
  if (!text) {
    text = send("GET", `/frame/${name}.js`).then((response) => response.text());
    loading.set(name, text);
    text.catch(() => loading.delete(name));
  }
  return text;
}
