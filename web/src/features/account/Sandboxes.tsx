import { useQuery } from "@tanstack/react-query";
import { Box, RefreshCw } from "lucide-react";
import { useState } from "react";
import { call } from "@/api/client";
import type { SessionList } from "@/api/types";
import { formatAgo, formatBytes } from "@/lib/format";
import { Badge, Button, ConfirmDialog, EmptyState } from "@/ui";
import { Facts, Found, formatTime, Row, Rows, Section, Shown, useChange } from "./parts";
import { useStrings } from "./strings";
import type { Sandbox } from "./types";

const tones = {
  starting: "warning",
  running: "success",
  pausing: "neutral",
  paused: "neutral",
  resuming: "warning",
  stopped: "danger",
} as const;

export default function Sandboxes() {
  const s = useStrings();
  const change = useChange("sandboxes");
  const [ending, setEnding] = useState<Sandbox | null>(null);
  const list = useQuery({
    queryKey: ["sandboxes"],
    queryFn: ({ signal }) =>
      call<{ sandboxes: Sandbox[] | null }>("GET", "/v1/sandboxes", { signal }).then((a) => a.sandboxes ?? []),
    refetchInterval: 10_000,
  });
  // Which session has which; the latest are enough to go from here to there.
  const sessions = useQuery({
    queryKey: ["sandboxes", "sessions"],
    queryFn: ({ signal }) => call<SessionList>("GET", "/v1/sessions", { query: { limit: 100 }, signal }),
  });
  const sessionOf = (id: string) => sessions.data?.sessions.find((session) => session.sandbox.id === id);

  return (
    <Section
      title={s.sandboxes}
      text={s.sandboxesText}
      action={
        <Button onClick={() => void list.refetch()} busy={list.isRefetching}>
          {!list.isRefetching && <RefreshCw className="size-3.5" aria-hidden />}
          {s.refresh}
        </Button>
      }
    >
      <Shown query={list}>
        {(sandboxes) =>
          sandboxes.length === 0 ? (
            <div className="rounded-lg border bg-raised py-6">
              <EmptyState icon={<Box />} title={s.noSandboxes}>
                {s.noSandboxesText}
              </EmptyState>
            </div>
          ) : (
            <Found
              list={sandboxes}
              textOf={(sandbox) =>
                `${sandbox.id} ${s.states[sandbox.state]} ${sandbox.template} ${sandbox.owner?.email ?? ""} ${sandbox.owner?.organisation_name ?? ""} ${sessionOf(sandbox.id)?.title ?? ""}`
              }
            >
              {(found) => (
                <Rows label={s.sandboxes}>
                  {found.map((sandbox) => {
                    const session = sessionOf(sandbox.id);
                    const { memory_bytes, cpus } = sandbox.limits;
                    return (
                      <Row key={sandbox.id}>
                        <div className="min-w-0 flex-1 basis-72">
                          <p className="flex flex-wrap items-center gap-x-2 gap-y-1">
                            <span className="break-all font-mono text-xs">{sandbox.id}</span>
                            <Badge tone={tones[sandbox.state]}>{s.states[sandbox.state]}</Badge>
                          </p>
                          <Facts
                            facts={[
                              sandbox.owner?.email && (
                                <span key="owner" className="break-all">
                                  {s.ofUser(sandbox.owner.email)}
                                </span>
                              ),
                              sandbox.owner?.organisation_name,
                              sandbox.template,
                              memory_bytes && formatBytes(memory_bytes),
                              cpus && `${cpus} CPU`,
                              s.created(formatAgo(sandbox.created_at)),
                              s.used(formatAgo(sandbox.last_used_at)),
                              sandbox.saved_bytes && s.onDisk(formatBytes(sandbox.saved_bytes)),
                              sandbox.state !== "stopped" && s.expires(formatTime(sandbox.expires_at)),
                            ]}
                          />
                          {session && (
                            <p className="mt-0.5 text-xs">
                              {s.ofSession}:{" "}
                              <a href={`/s/${session.id}`} className="text-accent underline underline-offset-2">
                                {session.title || s.untitled}
                              </a>
                            </p>
                          )}
                        </div>
                        <Button
                          size="sm"
                          className="text-danger"
                          aria-label={`${s.endSandbox}: ${sandbox.id}`}
                          onClick={() => setEnding(sandbox)}
                        >
                          {s.endSandbox}
                        </Button>
                      </Row>
                    );
                  })}
                </Rows>
              )}
            </Found>
          )
        }
      </Shown>
      <ConfirmDialog
        open={ending !== null}
        onOpenChange={(open) => !open && setEnding(null)}
        title={s.endSandboxTitle}
        description={s.endSandboxText}
        confirm={s.endSandbox}
        danger
        onConfirm={() =>
          ending && void change(() => call("DELETE", `/v1/sandboxes/${encodeURIComponent(ending.id)}`), s.ended)
        }
      />
    </Section>
  );
}
