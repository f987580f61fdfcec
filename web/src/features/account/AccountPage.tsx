import {
  ArrowLeft,
  Box,
  Building2,
  ChartColumn,
  Gauge,
  KeyRound,
  KeySquare,
  Lock,
  ScrollText,
  UserRound,
  Users as UsersIcon,
} from "lucide-react";
import { type ComponentType, lazy, Suspense, useEffect, useRef } from "react";
import { ErrorBoundary } from "@/app/ErrorBoundary";
import { Wordmark } from "@/app/Mark";
import { cx } from "@/lib/cx";
import { Button, EmptyState, IconButton, Select, Skeleton } from "@/ui";
import Keys from "./Keys";
import { may, useMe } from "./me";
import Profile from "./Profile";
import { accountSections, adminSections, closeSection, hashOf, openSection, type Section } from "./place";
import { useStrings } from "./strings";
import type { Me } from "./types";
import { useAllowance } from "./usage";

const Users = lazy(() => import("./Users"));
const Organisations = lazy(() => import("./Organisations"));
const Sandboxes = lazy(() => import("./Sandboxes"));
const Usage = lazy(() => import("./Usage"));
const AllUsage = lazy(() => import("./AllUsage"));
const Audit = lazy(() => import("./Audit"));

const icons: Record<Section, ComponentType<{ className?: string }>> = {
  profile: UserRound,
  keys: KeyRound,
  users: UsersIcon,
  organisations: Building2,
  "all-keys": KeySquare,
  sandboxes: Box,
  usage: Gauge,
  "all-usage": ChartColumn,
  audit: ScrollText,
};

/** Account and administration, instead of the sessions. */
export default function AccountPage({ section }: { section: Section }) {
  const s = useStrings();
  const me = useMe();
  // A server of before does not tell what is used; then there is no such section.
  const usage = useAllowance().data !== null;
  const top = useRef<HTMLElement>(null);
  const names: Record<Section, string> = {
    profile: s.profile,
    keys: s.keys,
    users: s.users,
    organisations: s.organisations,
    "all-keys": s.allKeys,
    sandboxes: s.sandboxes,
    usage: s.usage,
    "all-usage": s.allUsage,
    audit: s.audit,
  };
  const title = names[section];
  useEffect(() => {
    document.title = `${title} · Caesarion`;
  }, [title]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: another section begins at its top
  useEffect(() => {
    top.current?.scrollTo(0, 0);
  }, [section]);
  if (!me) return <Waiting />;

  const admin = may(me, "administer");
  const groups: { label: string; sections: Section[] }[] = [
    { label: s.account, sections: accountSections.filter((one) => one !== "usage" || usage) },
    {
      label: s.administration,
      sections: adminSections.filter(
        (one) => admin && (one !== "organisations" || may(me, "operate")) && (one !== "all-usage" || usage),
      ),
    },
  ].filter((group) => group.sections.length > 0);
  const offered = groups.flatMap((group) => group.sections);

  return (
    <div className="flex h-dvh w-screen flex-col overflow-hidden bg-surface md:flex-row">
      <header className="flex h-12 shrink-0 items-center gap-2 border-b bg-sunken px-2 md:hidden">
        <IconButton label={s.back} onClick={closeSection}>
          <ArrowLeft />
        </IconButton>
        <Select<Section>
          label={s.sections}
          value={section}
          onChange={openSection}
          className="min-w-0 flex-1"
          options={(offered.includes(section) ? offered : [section, ...offered]).map((value) => ({
            value,
            label: names[value],
          }))}
        />
      </header>
      <aside className="hidden w-64 shrink-0 flex-col overflow-y-auto border-r bg-sunken md:flex">
        <div className="flex h-12 shrink-0 items-center pl-4">
          <Wordmark />
        </div>
        <Button variant="ghost" className="mx-2 justify-start" onClick={closeSection}>
          <ArrowLeft className="size-4" aria-hidden />
          {s.back}
        </Button>
        <nav aria-label={s.sections} className="px-2 pb-4">
          {groups.map((group) => (
            <section key={group.label} aria-label={group.label}>
              <h2 className="px-2 pt-4 pb-1 font-medium text-2xs text-muted tracking-wide">{group.label}</h2>
              <ul>
                {group.sections.map((one) => {
                  const Icon = icons[one];
                  return (
                    <li key={one}>
                      <a
                        href={hashOf(one)}
                        aria-current={one === section ? "page" : undefined}
                        className={cx(
                          "flex h-8.5 items-center gap-2.5 rounded-md px-2 text-sm",
                          one === section ? "bg-hover font-medium" : "hover:bg-hover/60",
                        )}
                      >
                        <Icon className="size-4 text-muted" />
                        {names[one]}
                      </a>
                    </li>
                  );
                })}
              </ul>
            </section>
          ))}
        </nav>
        <div className="mt-auto border-t px-4 py-3">
          <p className="truncate font-medium text-sm">{me.name}</p>
          {me.organisation && (
            <p className="truncate text-muted text-xs">
              {me.organisation.name} · {s.roles[me.organisation.role]}
            </p>
          )}
        </div>
      </aside>
      <main
        id="main"
        ref={top}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
        tabIndex={0}
        className="min-h-0 min-w-0 flex-1 overflow-y-auto outline-offset-[-2px]"
      >
        <div className="mx-auto max-w-224 px-4 py-6 sm:px-8 md:py-10">
          <ErrorBoundary key={section}>
            <Suspense fallback={<Skeletons />}>
              {offered.includes(section) ? <Content me={me} section={section} /> : <NotYours me={me} />}
            </Suspense>
          </ErrorBoundary>
        </div>
      </main>
    </div>
  );
}

function Content({ me, section }: { me: Me; section: Section }) {
  switch (section) {
    case "profile":
      return <Profile me={me} />;
    case "keys":
      return <Keys me={me} />;
    case "users":
      return <Users me={me} />;
    case "organisations":
      return <Organisations me={me} />;
    case "all-keys":
      return <Keys me={me} all />;
    case "sandboxes":
      return <Sandboxes />;
    case "usage":
      return <Usage me={me} />;
    case "all-usage":
      return <AllUsage me={me} />;
    case "audit":
      return <Audit me={me} />;
  }
}

/** For who follows a link to what is not his to see. */
function NotYours({ me }: { me: Me }) {
  const s = useStrings();
  return (
    <div className="py-16">
      <EmptyState icon={<Lock />} title={s.notYours} action={<Button onClick={closeSection}>{s.back}</Button>}>
        {me.organisation && s.notYoursText(s.roles[me.organisation.role], me.organisation.name)}
      </EmptyState>
    </div>
  );
}

function Skeletons() {
  return (
    <div className="space-y-4">
      <Skeleton className="h-6 w-40" />
      <Skeleton className="h-4 w-2/3" />
      <Skeleton className="h-28 w-full" />
    </div>
  );
}

function Waiting() {
  const s = useStrings();
  return (
    <div role="status" aria-label={s.loading} className="mx-auto h-dvh max-w-224 px-8 py-10">
      <Skeletons />
    </div>
  );
}
