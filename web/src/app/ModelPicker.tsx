import { ChevronDown } from "lucide-react";
import { useActions, useModels, useSession } from "@/features/session";
import { cx } from "@/lib/cx";
import { formatCompact } from "@/lib/format";
import { Menu, MenuChoice, MenuLabel } from "@/ui";
import { useStrings } from "./strings";

/** The model that answers in this session: its name, "" for none, undefined while that is not known. */
export function useModelName(): string | undefined {
  const models = useModels();
  const chosen = useSession((state) => state.session?.model ?? state.draftModel);
  return chosen ?? (models.data ? (models.data.models.find((model) => model.default)?.name ?? "") : undefined);
}

/** compact: as it stands in the composer. */
export function ModelPicker({ compact = false }: { compact?: boolean }) {
  const s = useStrings();
  const { data } = useModels();
  const actions = useActions();
  const name = useModelName();
  const models = data?.models ?? [];
  const current = models.find((model) => model.name === name);
  const label = name === undefined ? "" : name === "" ? s.noModel : (current?.title ?? name);

  return (
    <Menu
      className="w-72"
      trigger={
        <button
          type="button"
          aria-label={`${s.model}: ${label}`}
          className={cx(
            "flex min-w-0 items-center gap-1 rounded-md px-2 text-muted transition-colors hover:bg-hover hover:text-ink data-[state=open]:bg-hover data-[state=open]:text-ink",
            compact ? "h-8 text-xs" : "h-9 text-sm",
          )}
        >
          <span className="max-w-24 truncate sm:max-w-36 lg:max-w-52">{label}</span>
          <ChevronDown className="size-3.5 shrink-0" aria-hidden />
        </button>
      }
    >
      {models.length === 0 ? (
        <div className="max-w-72 px-2 py-1.5 text-sm">
          <p className="font-medium">{s.noModels}</p>
          {data?.hint && <p className="mt-1 text-muted text-xs leading-relaxed">{data.hint}</p>}
        </div>
      ) : (
        <>
          <MenuLabel>{s.model}</MenuLabel>
          <MenuChoice
            value={name ?? ""}
            onChange={(model) => void actions.updateSession({ model })}
            options={[
              ...models.map((model) => ({
                value: model.name,
                label: model.title,
                detail: [
                  model.context_tokens > 0 ? s.tokens(formatCompact(model.context_tokens)) : "",
                  model.vision ? s.seesImages : "",
                  model.default ? s.defaultModel : "",
                ]
                  .filter((part) => part !== "")
                  .join(" · "),
              })),
              { value: "", label: s.noModel, detail: s.noModelDetail },
            ]}
          />
        </>
      )}
    </Menu>
  );
}
