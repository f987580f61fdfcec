import { useInfiniteQuery } from "@tanstack/react-query";
import { ScrollText, X } from "lucide-react";
import { useState } from "react";
import { call } from "@/api/client";
import { useSettled } from "@/lib/hooks";
import { Badge, Button, EmptyState, Select } from "@/ui";
import { type AuditFilter, auditQuery, noFilter, outcome, type Period, periods, within } from "./audit";
import { OrganisationPicker } from "./OrganisationPicker";
import { useLooked } from "./organisation";
import { Facts, formatTime, Row, Rows, Section, Shown } from "./parts";
import { useStrings } from "./strings";
import type { AuditEntry, AuditList, Me } from "./types";
import { useUsers } from "./Users";

const pageSize = 50;
const tones = { done: "success", refused: "warning", failed: "danger" } as const;

export default function Audit({ me }: { me: Me }) {
  const s = useStrings();
  const organisation = useLooked((state) => state.organisation);
  const [filter, setFilter] = useState<AuditFilter>(noFilter);
  const [period, setPeriod] = useState<Period>("ever");
  const settled = useSettled(filter, 250);
  const users = useUsers(organisation);
  const list = useInfiniteQuery({
    queryKey: ["audit", organisation, settled],
    queryFn: ({ pageParam, signal }) =>
      call<AuditList>("GET", "/v1/audit", {
        query: auditQuery({ ...settled, organisation }, pageParam, pageSize),
        signal,
      }),
    initialPageParam: 0,
    getNextPageParam: (last) => last.next || undefined,
    placeholderData: (before) => before, // no flicker while typing
    staleTime: 0,
  });
  const filtered = filter.user !== "" || filter.action !== "" || filter.object !== "" || period !== "ever";
  const { shown: entries, ended } = within(list.data?.pages.flatMap((page) => page.entries ?? []) ?? [], period);
  const set = (change: Partial<AuditFilter>) => setFilter({ ...filter, ...change });

  return (
    <Section title={s.audit} text={s.auditText} action={<OrganisationPicker me={me} />}>
      <search className="mb-4 flex flex-wrap items-end gap-x-3 gap-y-2">
        <Labelled text={s.filterUser}>
          <Select
            label={s.filterUser}
            value={filter.user}
            onChange={(user) => set({ user })}
            className="w-full sm:w-48"
            options={[
              { value: "", label: s.anybody },
              ...(users.data ?? []).map((user) => ({ value: user.id, label: user.name })),
            ]}
          />
        </Labelled>
        <Labelled text={s.filterAction}>
          <Select
            label={s.filterAction}
            value={filter.action}
            onChange={(action) => set({ action })}
            className="w-full sm:w-56"
            options={[
              { value: "", label: s.anything },
              ...Object.entries(s.actions).map(([value, label]) => ({ value, label })),
            ]}
          />
        </Labelled>
        <Labelled text={s.filterTime}>
          <Select<Period>
            label={s.filterTime}
            value={period}
            onChange={setPeriod}
            className="w-full sm:w-40"
            options={(Object.keys(periods) as Period[]).map((value) => ({ value, label: s.periods[value] }))}
          />
        </Labelled>
        <Labelled text={s.filterObject}>
          <input
            type="search"
            aria-label={s.filterObject}
            value={filter.object}
            onChange={(e) => set({ object: e.target.value })}
            placeholder={s.objectHint}
            spellCheck={false}
            className="h-8 w-full rounded-md sm:w-56 border border-line-strong bg-raised px-2.5 text-sm"
          />
        </Labelled>
        {filtered && (
          <Button
            variant="ghost"
            size="sm"
            className="h-8 text-muted"
            onClick={() => {
              setFilter(noFilter);
              setPeriod("ever");
            }}
          >
            <X className="size-3.5" aria-hidden />
            {s.clear}
          </Button>
        )}
      </search>
      <Shown query={list}>
        {() => {
          if (entries.length === 0) {
            return (
              <div className="rounded-lg border bg-raised py-6">
                <EmptyState icon={<ScrollText />} title={s.noEntries}>
                  {s.noEntriesText}
                </EmptyState>
              </div>
            );
          }
          return (
            <Rows label={s.audit}>
              {entries.map((entry) => (
                <Entry key={entry.n} entry={entry} />
              ))}
            </Rows>
          );
        }}
      </Shown>
      {list.hasNextPage && !ended && (
        <Button className="mt-3" busy={list.isFetchingNextPage} onClick={() => void list.fetchNextPage()}>
          {s.older}
        </Button>
      )}
    </Section>
  );
}

function Labelled({ text, children }: { text: string; children: React.ReactNode }) {
  return (
    <div className="flex w-full flex-col gap-1 sm:w-auto">
      <span aria-hidden className="text-muted text-xs">
        {text}
      </span>
      {children}
    </div>
  );
}

function Entry({ entry }: { entry: AuditEntry }) {
  const s = useStrings();
  const ended = outcome(entry);
  const action = Object.hasOwn(s.actions, entry.action)
    ? s.actions[entry.action as keyof typeof s.actions]
    : entry.action;
  return (
    <Row>
      <time dateTime={entry.at} className="w-36 shrink-0 text-muted text-xs tabular-nums">
        {formatTime(entry.at)}
      </time>
      <div className="min-w-0 flex-1 basis-72">
        <p className="text-sm">
          <span className="font-medium">{entry.name || entry.user_id || s.nobody}</span>{" "}
          <span title={entry.action}>{action}</span>
          {entry.object && <span className="ml-1.5 break-all font-mono text-xs">{entry.object}</span>}
        </p>
        <Facts
          facts={[
            entry.via && <span className="break-all font-mono">{entry.via}</span>,
            entry.address,
            entry.request_id && <span className="break-all font-mono">{entry.request_id}</span>,
          ]}
        />
      </div>
      <Badge tone={tones[ended]}>
        {ended === "done" ? s.outcomes.done : `${entry.status} ${entry.code ?? s.outcomes[ended]}`}
      </Badge>
    </Row>
  );
}
