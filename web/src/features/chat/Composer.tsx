import { ArrowUp, Paperclip, Play, Square } from "lucide-react";
import { type KeyboardEvent, useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";
import { ModelPicker } from "@/app/ModelPicker";
import { addFiles } from "@/features/files/add";
import { composerEvent } from "@/features/notebook/controller";
import { useActions, useHost, useModels, useSession, useSessionStore } from "@/features/session";
import { cx } from "@/lib/cx";
import { IconButton } from "@/ui";
import { useAttachments } from "./attachments";
import { AttachedFiles, Queue } from "./ComposerParts";
import { loadDraft, saveDraft } from "./draft";
import { editMessage } from "./editing";
import { fitHeight } from "./fit";
import { PythonInput, type PythonInputHandle } from "./PythonInput";
import { useStoreKey } from "./storeKey";
import { useStrings } from "./strings";

type Mode = "ask" | "python";

/** Where the person writes to the model; without one, where they write Python. */
export function Composer() {
  return <ComposerBox key={useStoreKey()} />;
}

function ComposerBox() {
  const s = useStrings();
  const actions = useActions();
  const store = useSessionStore();
  const storeKey = useStoreKey();
  const models = useModels();
  const cluster = useHost(models.data?.models.length === 0)?.driver === "kube";
  const sessionId = useSession((state) => state.id);
  const chosen = useSession((state) => state.session?.model ?? state.draftModel);
  const running = useSession((state) => state.session?.turn !== undefined);
  const begun = useSession((state) => state.order.length > 0);
  // undefined while that is not known: then nothing is offered that may vanish again.
  const model = chosen ?? (models.data ? (models.data.models.find((m) => m.default)?.name ?? "") : undefined);

  const [draft, setDraft] = useState(() => loadDraft(sessionId));
  const [wanted, setWanted] = useState<Mode>("ask");
  const [sending, setSending] = useState(false);
  const form = useRef<HTMLFormElement>(null);
  const area = useRef<HTMLTextAreaElement>(null);
  const python = useRef<PythonInputHandle>(null);
  const picker = useRef<HTMLInputElement>(null);
  const attached = useAttachments(sessionId);
  const mode: Mode = model === "" ? "python" : wanted;

  // A draft of no session becomes that of the session which is made for it.
  const draftOf = useRef(sessionId);
  useEffect(() => {
    if (draftOf.current !== sessionId) saveDraft(draftOf.current, { text: "", code: "" });
    draftOf.current = sessionId;
    saveDraft(sessionId, draft);
  }, [sessionId, draft]);
  const type = (change: Partial<typeof draft>) => {
    void actions.ensureSandbox();
    setDraft((before) => ({ ...before, ...change }));
  };

  // biome-ignore lint/correctness/useExhaustiveDependencies: the text decides the height
  useLayoutEffect(() => fitHeight(area.current, Math.min(320, innerHeight * 0.4)), [draft.text, mode]);

  useEffect(() => {
    const focus = () => (mode === "ask" ? area.current?.focus() : python.current?.focus());
    window.addEventListener(composerEvent, focus);
    return () => window.removeEventListener(composerEvent, focus);
  }, [mode]);
  // Who opens the page can type; not on phones, where the keyboard would cover it.
  useEffect(() => {
    if (matchMedia("(pointer: fine)").matches && document.activeElement === document.body)
      window.dispatchEvent(new Event(composerEvent));
  }, []);
  // Once it is known that no model answers, the field becomes one for Python: it keeps the focus.
  const lost = useRef(false);
  const holdArea = useCallback((element: HTMLTextAreaElement) => {
    area.current = element;
    return () => {
      lost.current = document.activeElement === element;
      area.current = null;
    };
  }, []);
  useEffect(() => {
    if (mode === "python" && lost.current) python.current?.focus();
    lost.current = false;
  }, [mode]);

  const canSend = (draft.text.trim() !== "" || attached.files.length > 0) && !sending;
  const send = async () => {
    if (!canSend) return;
    setSending(true);
    try {
      const { text } = draft;
      const files = await attached.arrived();
      if (files === null) return; // the chip says what happened
      const sent = await actions.send({ text, ...(files.length > 0 ? { files } : {}), ...(model ? { model } : {}) });
      if (!sent) return;
      attached.clear();
      // What was typed meanwhile stays.
      setDraft((now) => (now.text === text ? { ...now, text: "" } : now));
    } finally {
      setSending(false);
    }
  };

  const run = async () => {
    const { code } = draft;
    if (code.trim() === "" || sending) return;
    setDraft((now) => ({ ...now, code: "" }));
    setSending(true);
    const item = await actions.addItem({ kind: "cell", code });
    setSending(false);
    if (!item) setDraft((now) => (now.code === "" ? { ...now, code } : now));
    else void actions.run([item.id]);
  };

  const lastOf = (kind: "user" | "cell"): string | undefined => {
    const { order, items } = store.get();
    return order.findLast((id) => items.get(id)?.kind === kind);
  };
  const onKeyDown = (event: KeyboardEvent<HTMLTextAreaElement>) => {
    if (event.nativeEvent.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey && !event.altKey) {
      event.preventDefault();
      void send();
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (running) void actions.stop();
      else form.current?.focus();
    } else if (event.key === "ArrowUp" && draft.text === "" && !event.shiftKey) {
      const id = lastOf("user");
      if (id && editMessage(id)) event.preventDefault();
    }
  };

  // The box itself has the focus after Escape: from there it goes into the
  // thread, or back into the text.
  const onBoxKey = (event: KeyboardEvent<HTMLFormElement>) => {
    if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
    const up = event.key === "ArrowUp" || event.key === "k" || (event.key === "Tab" && event.shiftKey);
    if (up ? focusLastEntry() : event.key === "Enter") event.preventDefault();
    if (event.key === "Enter") window.dispatchEvent(new Event(composerEvent));
  };

  const switchTo = (next: Mode) => {
    setWanted(next);
    requestAnimationFrame(() => window.dispatchEvent(new Event(composerEvent)));
  };
  const pick = (list: FileList | null) => {
    if (list && list.length > 0) void addFiles(actions, [...list]);
    if (picker.current) picker.current.value = "";
  };

  return (
    <div className="composer shrink-0 px-3 pb-[max(0.75rem,env(safe-area-inset-bottom))] sm:px-8">
      <form
        ref={form}
        tabIndex={-1}
        className="mx-auto max-w-192 rounded-2xl"
        onKeyDown={onBoxKey}
        onSubmit={(event) => {
          event.preventDefault();
          void (mode === "ask" ? send() : run());
        }}
      >
        <Queue />
        <div
          className={cx(
            "rounded-2xl border border-line-strong bg-raised shadow-card transition-colors focus-within:border-accent/70",
            model === undefined && "opacity-60",
          )}
        >
          <AttachedFiles attached={attached} />
          {mode === "ask" ? (
            <textarea
              ref={holdArea}
              data-composer
              rows={1}
              value={draft.text}
              aria-label={s.composer.label}
              placeholder={begun ? s.composer.askMore : s.composer.ask}
              onChange={(event) => type({ text: event.target.value })}
              onKeyDown={onKeyDown}
              className="block max-h-[40vh] w-full resize-none bg-transparent px-4 pt-3 pb-1 leading-6 outline-none"
            />
          ) : (
            <PythonInput
              ref={python}
              id={`composer-${storeKey}`} // not the session's id: it comes with the first key, and the editor stays
              value={draft.code}
              hint={s.composer.python}
              label={s.composer.pythonLabel}
              onChange={(code) => type({ code })}
              onRun={() => void run()}
              onLeave={() => form.current?.focus()}
              onHistory={() => {
                const { items } = store.get();
                const code = items.get(lastOf("cell") ?? "")?.code;
                if (code) setDraft((now) => ({ ...now, code }));
                return code !== undefined;
              }}
            />
          )}
          <div className="flex items-center gap-1 px-2 pb-2">
            <input ref={picker} type="file" multiple hidden onChange={(event) => pick(event.target.files)} />
            <IconButton label={s.composer.attach} size="sm" className="size-8" onClick={() => picker.current?.click()}>
              <Paperclip aria-hidden />
            </IconButton>
            {model ? <ModeSwitch mode={mode} onChange={switchTo} /> : null}
            {sending && attached.waiting ? (
              <span role="status" className="truncate px-1 text-muted text-xs">
                {s.composer.waiting}
              </span>
            ) : null}
            <span className="flex-1" />
            {(models.data?.models.length ?? 0) > 0 ? <ModelPicker compact /> : null}
            {running ? (
              <IconButton
                label={s.composer.stop}
                keys="Esc"
                variant="primary"
                size="sm"
                className="size-8 rounded-full!"
                onClick={() => void actions.stop()}
              >
                <Square className="fill-current p-0.5" aria-hidden />
              </IconButton>
            ) : null}
            {mode === "python" ? (
              <IconButton
                type="submit"
                label={s.composer.run}
                keys="Shift+Enter"
                variant="primary"
                size="sm"
                className="size-8 rounded-full!"
                disabled={draft.code.trim() === "" || sending}
              >
                <Play className="ml-0.5 fill-current p-px" aria-hidden />
              </IconButton>
            ) : !running || canSend ? (
              <IconButton
                type="submit"
                label={running ? s.composer.queue : s.composer.send}
                keys="Enter"
                variant={running ? "plain" : "primary"}
                size="sm"
                className="size-8 rounded-full!"
                disabled={!canSend}
                aria-busy={sending || undefined}
              >
                <ArrowUp aria-hidden />
              </IconButton>
            ) : null}
          </div>
        </div>
        {model === "" ? (
          <p className="mt-1.5 truncate px-1 text-muted text-xs" title={models.data?.hint}>
            {s.composer.noModel}{" "}
            {models.data?.models.length === 0
              ? cluster
                ? s.composer.noModelCluster
                : s.composer.noModelHint
              : models.data
                ? s.composer.noModelChosen
                : null}
          </p>
        ) : null}
      </form>
    </div>
  );
}

/** Puts the focus on the last entry of the thread, in command mode; tells whether there is one. */
function focusLastEntry(): boolean {
  const last = [...document.querySelectorAll<HTMLElement>("[data-thread] [data-entry]")].at(-1);
  last?.focus({ preventScroll: true });
  last?.scrollIntoView({ block: "nearest" });
  return last !== undefined;
}

function ModeSwitch({ mode, onChange }: { mode: Mode; onChange: (mode: Mode) => void }) {
  const s = useStrings();
  return (
    <fieldset className="inline-flex h-8 items-center rounded-full bg-sunken p-0.5 text-xs">
      <legend className="sr-only">{s.composer.mode}</legend>
      {(["ask", "python"] as const).map((each) => (
        <button
          key={each}
          type="button"
          aria-pressed={mode === each}
          onClick={() => onChange(each)}
          className={cx(
            "h-7 rounded-full px-2.5 transition-colors",
            mode === each ? "bg-raised font-medium text-ink shadow-card" : "text-muted hover:text-ink",
          )}
        >
          {each === "ask" ? s.composer.modeAsk : s.composer.modePython}
        </button>
      ))}
    </fieldset>
  );
}
