import { FileUp, Plus, Search, X } from "lucide-react";
import { useState } from "react";
import { useRoute } from "wouter";
import { useMay } from "@/features/account/me";
import { useSettled } from "@/lib/hooks";
import { Button, IconButton, Skeleton } from "@/ui";
import { SessionRow } from "./SessionRow";
import { groupByAge, pickNotebook, useSessions } from "./sessions";
import { useStrings } from "./strings";

export interface SidebarProps {
  onNew: () => void;
  /** A session was chosen: on phones the list goes away. */
  onChosen?: () => void;
}

/** All sessions: find one, or begin a new one. */
export function Sidebar({ onNew, onChosen }: SidebarProps) {
  const s = useStrings();
  const [query, setQuery] = useState("");
  const settled = useSettled(query.trim(), 200);
  const list = useSessions(settled);
  const changes = useMay("write");
  const [, route] = useRoute("/s/:id");
  const sessions = list.data?.pages.flatMap((page) => page.sessions) ?? [];

  return (
    <div className="flex h-full min-h-0 flex-col">
      {changes && (
        <div className="flex gap-1.5 px-3 pt-1 pb-2">
          <Button className="flex-1 justify-start" onClick={onNew}>
            <Plus className="size-4" aria-hidden />
            {s.newSession}
          </Button>
          <IconButton label={s.importNotebook} variant="plain" onClick={pickNotebook}>
            <FileUp />
          </IconButton>
        </div>
      )}
      <search className="relative px-3 pb-2">
        <Search
          aria-hidden
          className="-translate-y-1/2 pointer-events-none absolute top-[1.0625rem] left-5.5 size-4 text-muted"
        />
        <input
          type="search"
          value={query}
          onChange={(e) => setQuery(e.target.value)}
          onKeyDown={(e) => e.key === "Escape" && setQuery("")}
          placeholder={s.search}
          aria-label={s.search}
          className="h-8.5 w-full rounded-md border border-transparent bg-hover pr-8 pl-8 text-sm focus:border-line-strong focus:bg-raised [&::-webkit-search-cancel-button]:hidden"
        />
        {query !== "" && (
          <IconButton
            label={s.clearSearch}
            tip={false}
            size="sm"
            className="absolute top-[0.1875rem] right-3.5"
            onClick={() => setQuery("")}
          >
            <X />
          </IconButton>
        )}
      </search>
      <nav aria-label={s.sessions} className="min-h-0 flex-1 overflow-y-auto px-2 pb-3" aria-busy={list.isPending}>
        {list.isPending ? (
          <div className="space-y-3 p-2 pt-6">
            {[70, 85, 55, 75, 60].map((width) => (
              <Skeleton key={width} className="h-4" style={{ width: `${width}%` }} />
            ))}
          </div>
        ) : list.isError && sessions.length === 0 ? (
          <div className="p-3 text-muted text-sm">
            <p>{s.loadFailed}</p>
            <Button size="sm" className="mt-2" onClick={() => list.refetch()}>
              {s.again}
            </Button>
          </div>
        ) : sessions.length === 0 ? (
          <p className="px-3 py-4 text-muted text-sm">{settled === "" ? s.noSessions : s.noMatch}</p>
        ) : (
          groupByAge(sessions).map(({ age, sessions }) => (
            <section key={age} aria-labelledby={`age-${age}`}>
              <h2 id={`age-${age}`} className="px-2 pt-3 pb-1 font-medium text-2xs text-muted tracking-wide">
                {s[age]}
              </h2>
              <ul>
                {sessions.map((session) => (
                  <SessionRow
                    key={session.id}
                    session={session}
                    current={route?.id === session.id}
                    onChosen={onChosen}
                  />
                ))}
              </ul>
            </section>
          ))
        )}
        {list.hasNextPage && (
          <Button
            variant="ghost"
            size="sm"
            className="mt-2 w-full text-muted"
            busy={list.isFetchingNextPage}
            onClick={() => list.fetchNextPage()}
            ref={(button) => {
              // Coming into view is enough.
              if (!button || typeof IntersectionObserver === "undefined") return;
              const observer = new IntersectionObserver(([entry]) => {
                if (entry?.isIntersecting) void list.fetchNextPage();
              });
              observer.observe(button);
              return () => observer.disconnect();
            }}
          >
            {s.loadMore}
          </Button>
        )}
      </nav>
    </div>
  );
}
