import { Check, ChevronRight, CloudSun, FolderTree, TriangleAlert, Wrench } from "lucide-react";
import type { Item, Json } from "@/api/types";
import { openPreview } from "@/features/files/preview";
import { StaticCode } from "@/features/notebook/highlight/StaticCode";
import { cx } from "@/lib/cx";
import { Spinner } from "@/ui";
import { useStrings } from "../strings";
import { type ListedFile, readFiles } from "./listing";
import { WeatherCard } from "./WeatherCard";
import { readWeather } from "./weather";

/** A call of the model that is no code: its own card where we know it, arguments and result otherwise. */
export function ToolCard({ item }: { item: Item }) {
  const s = useStrings();
  const tool = item.tool;
  if (!tool) return null;
  const runs = item.status === "running" || item.status === "writing" || item.status === "queued";
  if (tool.name === "get_current_weather") {
    if (readWeather(tool.result)) return <WeatherCard result={tool.result} />;
    if (runs) {
      return (
        <Line icon={<CloudSun />} runs>
          {s.tool.weatherLoading}
        </Line>
      );
    }
    return (
      <Line icon={<CloudSun />} failed>
        {tool.error || s.tool.weatherFailed}
      </Line>
    );
  }
  if (tool.name === "list_files" && !tool.error && !runs) {
    const files = readFiles(tool.result);
    if (files) return <FileList files={files} />;
  }
  return (
    <details className="group/tool overflow-hidden rounded-xl border bg-raised">
      <summary className="flex h-10 cursor-pointer list-none items-center gap-2 px-3 text-sm hover:bg-hover/50 [&::-webkit-details-marker]:hidden">
        <Wrench className="size-4 shrink-0 text-muted" aria-hidden />
        <span className="min-w-0 truncate font-mono text-[13px]">{tool.name}</span>
        <State runs={runs} failed={Boolean(tool.error) || item.status === "error"} />
        <ChevronRight
          className="ml-auto size-4 shrink-0 text-muted transition-transform group-open/tool:rotate-90"
          aria-hidden
        />
      </summary>
      <div className="border-t">
        <Value label={s.tool.arguments} value={tool.arguments} />
        {tool.error ? (
          <p className="px-3 py-2 text-danger text-sm">{tool.error}</p>
        ) : (
          <Value label={s.tool.result} value={tool.result} />
        )}
      </div>
    </details>
  );
}

function State({ runs, failed }: { runs: boolean; failed: boolean }) {
  const s = useStrings();
  if (runs) return <Spinner className="size-3.5 text-accent" label={s.tool.running} />;
  return failed ? (
    <TriangleAlert className="size-3.5 shrink-0 text-danger" role="img" aria-label={s.tool.failed} />
  ) : (
    <Check className="size-3.5 shrink-0 text-success" role="img" aria-label={s.tool.done} />
  );
}

function Line(props: { icon: React.ReactNode; runs?: boolean; failed?: boolean; children: React.ReactNode }) {
  return (
    <p
      className={cx(
        "inline-flex min-h-10 max-w-full items-center gap-2.5 rounded-xl border bg-raised px-3.5 py-2 text-sm [&>svg]:size-4 [&>svg]:shrink-0",
        props.failed ? "text-danger" : "text-muted",
      )}
    >
      {props.icon}
      {props.children}
      {props.runs ? <Spinner className="size-3.5 text-accent" /> : null}
    </p>
  );
}

function Value({ label, value }: { label: string; value: Json | undefined }) {
  if (value === undefined) return null;
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  return (
    <div className="border-b last:border-b-0">
      <p className="px-3 pt-2 text-muted text-xs">{label}</p>
      <div className="max-h-72 overflow-auto">
        <StaticCode
          code={text.length > 20_000 ? `${text.slice(0, 20_000)}\n…` : text}
          language={typeof value === "string" ? "text" : "json"}
        />
      </div>
    </div>
  );
}

const most = 24;
const indents = ["pl-3", "pl-6", "pl-9", "pl-12", "pl-15"];

function FileList({ files }: { files: readonly ListedFile[] }) {
  const s = useStrings();
  const roots = files.filter((file) => file.depth === 0).map((file) => file.path);
  const label = s.tool.listing(roots.join(", "));
  return (
    <section aria-label={label} className="overflow-hidden rounded-xl border bg-raised">
      <p className="flex h-9 items-center gap-2 px-3 text-muted text-sm">
        <FolderTree className="size-4 shrink-0" aria-hidden />
        <span className="truncate">{label}</span>
      </p>
      {files.length === roots.length ? (
        <p className="border-t px-3 py-2 text-muted text-sm">{s.tool.empty}</p>
      ) : (
        <ul className="border-t py-1.5">
          {files.slice(0, most).map((file) => (
            <li
              key={file.path}
              className={cx(
                "flex items-baseline gap-3 py-0.5 pr-3 text-sm",
                indents[Math.min(file.depth, indents.length - 1)],
              )}
            >
              {file.folder ? (
                <span className="min-w-0 truncate font-mono text-[13px] text-muted">{file.name}/</span>
              ) : (
                <button
                  type="button"
                  title={file.path}
                  className="min-w-0 truncate rounded text-left font-mono text-[13px] hover:text-accent hover:underline"
                  onClick={() => openPreview(file.path)}
                >
                  {file.name}
                </button>
              )}
              <span className="ml-auto shrink-0 text-muted text-xs tabular-nums">{file.size}</span>
            </li>
          ))}
          {files.length > most ? (
            <li className="px-3 py-0.5 text-muted text-xs">{s.tool.moreFiles(files.length - most)}</li>
          ) : null}
        </ul>
      )}
    </section>
  );
}
