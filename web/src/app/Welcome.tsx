import { ChartSpline, Code, FileSearch, Table2 } from "lucide-react";
import { useState } from "react";
import { useMay } from "@/features/account/me";
import { useActions, useSession, useSessionStore } from "@/features/session";
import { type Example, examples, startExample } from "@/features/session/examples";
import { useLanguage } from "@/lib/i18n";
import { Button, Spinner, toast } from "@/ui";
import { Mark } from "./Mark";
import { useModelName } from "./ModelPicker";
import { useStrings } from "./strings";

const icons = { sales: Table2, log: FileSearch, fit: ChartSpline };

/** An empty session: says what this is for, and shows it by three examples. */
export function Welcome() {
  const s = useStrings();
  const language = useLanguage();
  const store = useSessionStore();
  const actions = useActions();
  const model = useModelName();
  const runs = useMay("execute");
  const [busy, setBusy] = useState<string>("");
  // The title of a session, in the header, is the page's heading once there is one.
  const Heading = useSession((state) => state.session !== null) ? "h2" : "h1";
  const Examples = Heading === "h1" ? "h2" : "h3";
  const notebook = model === "";

  const start = async (example: Example) => {
    setBusy(example.id);
    try {
      await startExample(example, { store, actions, language, model: model !== undefined && model !== "" });
    } catch (err) {
      toast.failure(err, s.exampleFailed);
    } finally {
      setBusy("");
    }
  };

  return (
    <div className="mx-auto flex min-h-full w-full max-w-208 flex-col justify-center px-4 py-8 sm:px-8">
      <div className={model === undefined ? "invisible" : undefined}>
        <Mark className="size-10" />
        <Heading className="mt-5 font-semibold text-[1.65rem] leading-tight tracking-[-0.02em]">
          {notebook ? s.welcomeNotebook : s.welcome}
        </Heading>
        <p className="mt-2 max-w-[62ch] text-muted">{notebook ? s.welcomeNotebookDetail : s.welcomeDetail}</p>
        {notebook && runs && (
          <div className="mt-5">
            <Button variant="primary" onClick={() => void actions.addItem({ kind: "cell" })}>
              <Code className="size-4" aria-hidden />
              {s.firstCell}
            </Button>
          </div>
        )}
        {runs && (
          <>
            <Examples className="mt-9 mb-2.5 font-medium text-muted text-sm">{s.examples}</Examples>
            <ul className="grid gap-2.5 sm:grid-cols-3">
              {examples.map((example) => {
                const Icon = icons[example.id];
                const texts = example.texts[language];
                return (
                  <li key={example.id}>
                    <button
                      type="button"
                      disabled={busy !== ""}
                      onClick={() => void start(example)}
                      className="group flex h-full w-full items-start gap-3 rounded-lg border bg-raised p-3.5 text-left transition-colors hover:border-line-strong hover:bg-hover/40 disabled:opacity-60 sm:flex-col"
                    >
                      {busy === example.id ? (
                        <Spinner className="size-5 text-accent" />
                      ) : (
                        <Icon className="size-5 shrink-0 text-accent" strokeWidth={1.75} aria-hidden />
                      )}
                      <span className="min-w-0">
                        <span className="block font-medium text-sm">{texts.title}</span>
                        <span className="mt-0.5 block text-muted text-sm leading-snug">{texts.detail}</span>
                        <span className="mt-2 block font-mono text-2xs text-muted">{example.file}</span>
                      </span>
                    </button>
                  </li>
                );
              })}
            </ul>
          </>
        )}
      </div>
    </div>
  );
}
