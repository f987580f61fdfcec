import { ChevronRight, Lightbulb, RotateCcw } from "lucide-react";
import { memo } from "react";
import type { Item } from "@/api/types";
import { useMay } from "@/features/account/me";
import { useActions, useSession, useSessionStore } from "@/features/session";
import { cx } from "@/lib/cx";
import { formatNumber } from "@/lib/format";
import { IconButton, Tooltip } from "@/ui";
import { Branches } from "./Branches";
import { Markdown } from "./Markdown";
import { CopyButton } from "./markdown/CodeBlock";
import { useStrings } from "./strings";
import { answerStart, answerText } from "./thread";

/** A piece of what the model said. */
export function AssistantMessage({ item }: { item: Item }) {
  const writing = item.status === "writing";
  const text = item.text ?? "";
  return (
    <div className={cx("py-1", writing && text !== "" && "streaming")}>
      {item.reasoning ? <Reasoning text={item.reasoning} going={writing && text === ""} /> : null}
      {text !== "" ? <Markdown text={text} streaming={writing} /> : null}
    </div>
  );
}

const Reasoning = memo(function Reasoning({ text, going }: { text: string; going: boolean }) {
  const s = useStrings();
  return (
    <details className="group/reason mb-2">
      <summary className="inline-flex cursor-pointer list-none items-center gap-1.5 rounded-md py-1 pr-2 text-muted text-sm hover:text-ink [&::-webkit-details-marker]:hidden">
        <Lightbulb className={cx("size-3.5", going && "animate-pulse text-gold")} aria-hidden />
        {going ? `${s.message.thinking} …` : s.message.reasoned}
        <ChevronRight className="size-3.5 transition-transform group-open/reason:rotate-90" aria-hidden />
      </summary>
      <div className="mt-1 mb-3 border-line border-l-2 pl-4 text-muted text-sm">
        <Markdown text={text} streaming={going} />
      </div>
    </details>
  );
});

/** Below the last entry of an answer: what can be done with the answer as a whole. */
export function AnswerActions({ last }: { last: Item }) {
  const s = useStrings();
  const actions = useActions();
  const store = useSessionStore();
  const start = useSession((state) => answerStart(last, state.order, state.items));
  const turn = useSession((state) => (state.lastTurn?.id === last.turn_id ? state.lastTurn : null));
  const model = last.model ?? start.model ?? turn?.model ?? "";
  const usage = turn?.usage;
  const runs = useMay("execute");
  return (
    <div className="-ml-1.5 flex h-8 items-center gap-0.5 text-muted text-xs">
      <CopyButton
        bare
        text={() => answerText(last.turn_id ?? "", store.get().order, store.get().items)}
        className="inline-flex size-7 items-center justify-center rounded-md text-muted hover:bg-hover hover:text-ink"
      />
      {runs && (
        <IconButton size="sm" label={s.message.regenerate} onClick={() => void actions.regenerate(start.id)}>
          <RotateCcw aria-hidden />
        </IconButton>
      )}
      <Branches item={start} />
      {model ? (
        usage ? (
          <Tooltip text={s.message.tokens(formatNumber(usage.input_tokens), formatNumber(usage.output_tokens))}>
            <button type="button" className="ml-1.5 cursor-default rounded px-1">
              {model}
            </button>
          </Tooltip>
        ) : (
          <span className="ml-1.5 px-1">{model}</span>
        )
      ) : null}
    </div>
  );
}
