import {
  Copy,
  FileCode2,
  Keyboard,
  Languages,
  Link as LinkIcon,
  LogOut,
  Menu as MenuIcon,
  MoreHorizontal,
  PanelLeft,
  PanelRight,
  Pin,
  PinOff,
  SquareTerminal,
  SunMoon,
  Trash2,
  UserRound,
  UsersRound,
} from "lucide-react";
import { lazy, Suspense, useState } from "react";
import { signOut } from "@/features/account/leave";
import { may, useMay, useMe } from "@/features/account/me";
import { openSection } from "@/features/account/place";
import { SandboxStatus } from "@/features/sandbox/SandboxStatus";
import { useActions, useSession } from "@/features/session";
import { ExportMenu, TitleInput } from "@/features/session/SessionRow";
import { duplicateSession, removeSession, updateSession } from "@/features/session/sessions";
import { formatCompact, formatNumber } from "@/lib/format";
import { usePhone } from "@/lib/hooks";
import { type Language, languages, setLanguage, useLanguage } from "@/lib/i18n";
import { whenIdle } from "@/lib/idle";
import { setTheme, type Theme, useTheme } from "@/lib/theme";
import { IconButton, Menu, MenuChoice, MenuItem, MenuLabel, MenuLine, MenuSub, Tooltip, toast } from "@/ui";
import { openDialog, togglePanel, toggleSidebar, useLayout } from "./layout";
import { ModelPicker } from "./ModelPicker";
import { useStrings } from "./strings";

const UnseenDot = lazy(() =>
  whenIdle()
    .then(() => import("@/features/files/Unseen"))
    .then((m) => ({ default: m.UnseenDot })),
);

export function Header() {
  const s = useStrings();
  const phone = usePhone();
  const sidebar = useLayout((layout) => (phone ? layout.drawer === "sidebar" : layout.sidebar));
  const panel = useLayout((layout) => (phone ? layout.drawer === "panel" : layout.panel));

  return (
    <header className="flex h-12 shrink-0 items-center gap-1 border-b bg-surface px-2">
      {(phone || !sidebar) && (
        <IconButton label={s.openSidebar} keys="Mod+B" aria-expanded={sidebar} onClick={toggleSidebar}>
          {phone ? <MenuIcon /> : <PanelLeft />}
        </IconButton>
      )}
      <Title />
      <div className="ml-auto flex min-w-0 shrink-0 items-center gap-1">
        {!phone && <Tokens />}
        <SandboxStatus />
        {!phone && <ModelPicker />}
        <SessionMenu />
        <span className="relative">
          <IconButton
            label={panel ? s.closePanel : s.openPanel}
            keys="Mod+J"
            aria-pressed={panel}
            onClick={togglePanel}
          >
            <PanelRight />
          </IconButton>
          {!panel && (
            <Suspense fallback={null}>
              <UnseenDot />
            </Suspense>
          )}
        </span>
      </div>
    </header>
  );
}

function Title() {
  const s = useStrings();
  const session = useSession((state) => state.session);
  const actions = useActions();
  const changes = useMay("write");
  const [renaming, setRenaming] = useState(false);
  if (!session) return <span className="flex-1" />;
  if (renaming) {
    return (
      <TitleInput
        title={session.title}
        className="max-w-96"
        onDone={(title) => {
          setRenaming(false);
          if (title !== null && title !== session.title) void actions.updateSession({ title });
        }}
      />
    );
  }
  return (
    <h1 className="min-w-0 flex-1">
      <button
        type="button"
        onClick={() => setRenaming(true)}
        disabled={!changes}
        title={changes ? s.renameSession : undefined}
        className="block h-8 max-w-full truncate rounded-md px-2 text-left font-medium text-sm enabled:hover:bg-hover"
      >
        {session.title || <span className="font-normal text-muted">{s.untitled}</span>}
      </button>
    </h1>
  );
}

function Tokens() {
  const s = useStrings();
  const usage = useSession((state) => state.session?.usage);
  const total = (usage?.input_tokens ?? 0) + (usage?.output_tokens ?? 0);
  if (!usage || total === 0) return null;
  const detail = [
    s.tokensIn(formatNumber(usage.input_tokens)),
    usage.cached_input_tokens ? s.tokensCached(formatNumber(usage.cached_input_tokens)) : "",
    s.tokensOut(formatNumber(usage.output_tokens)),
  ];
  return (
    <Tooltip text={detail.filter((part) => part !== "").join(", ")}>
      <button
        type="button"
        aria-label={[s.tokens(formatCompact(total)), ...detail.filter((part) => part !== "")].join(", ")}
        className="hidden cursor-default rounded px-2 text-muted text-xs tabular-nums lg:block"
      >
        {s.tokens(formatCompact(total))}
      </button>
    </Tooltip>
  );
}

function SessionMenu() {
  const s = useStrings();
  const session = useSession((state) => state.session);
  const language = useLanguage();
  const theme = useTheme();
  const me = useMe();
  const changes = may(me, "write");
  return (
    <Menu
      trigger={
        <IconButton label={s.menu}>
          <MoreHorizontal />
        </IconButton>
      }
    >
      {session && (
        <>
          {changes && (
            <MenuItem
              icon={session.pinned ? <PinOff /> : <Pin />}
              onSelect={() => void updateSession(session.id, { pinned: !session.pinned })}
            >
              {session.pinned ? s.unpin : s.pin}
            </MenuItem>
          )}
          <MenuItem
            icon={<LinkIcon />}
            onSelect={() =>
              void navigator.clipboard
                .writeText(location.href)
                .then(() => toast.success(s.linkCopied, me ? s.linkDetailAccounts : s.linkDetail))
                .catch((err: unknown) => toast.failure(err))
            }
          >
            {s.copyLink}
          </MenuItem>
          {changes && (
            <MenuItem icon={<Copy />} onSelect={() => void duplicateSession(session.id)}>
              {s.duplicate}
            </MenuItem>
          )}
          <ExportMenu id={session.id} />
          {changes && (
            <MenuItem icon={<Trash2 />} danger onSelect={() => void removeSession(session)}>
              {s.remove}
            </MenuItem>
          )}
          <MenuLine />
        </>
      )}
      <MenuItem icon={<SquareTerminal />} keys="Mod+K" onSelect={() => openDialog("palette")}>
        {s.commands}
      </MenuItem>
      <MenuItem icon={<Keyboard />} keys="?" onSelect={() => openDialog("shortcuts")}>
        {s.shortcuts}
      </MenuItem>
      <MenuSub icon={<SunMoon />} label={s.theme}>
        <MenuChoice<Theme>
          value={theme}
          onChange={setTheme}
          options={[
            { value: "system", label: s.themeSystem },
            { value: "light", label: s.themeLight },
            { value: "dark", label: s.themeDark },
          ]}
        />
      </MenuSub>
      <MenuSub icon={<Languages />} label={s.language}>
        <MenuChoice<Language>
          value={language}
          onChange={setLanguage}
          options={(Object.keys(languages) as Language[]).map((value) => ({ value, label: languages[value] }))}
        />
      </MenuSub>
      <MenuItem icon={<FileCode2 />} onSelect={() => window.open("/docs", "_blank", "noopener")}>
        {s.apiDocs}
      </MenuItem>
      {me && (
        <>
          <MenuLine />
          <MenuLabel>
            <span className="block truncate font-medium text-ink">{me.name}</span>
            {me.organisation && (
              <span className="block truncate">
                {me.organisation.name} · {s.roles[me.organisation.role]}
              </span>
            )}
          </MenuLabel>
          <MenuItem icon={<UserRound />} onSelect={() => openSection("profile")}>
            {s.account}
          </MenuItem>
          {may(me, "administer") && (
            <MenuItem icon={<UsersRound />} onSelect={() => openSection("users")}>
              {s.administration}
            </MenuItem>
          )}
        </>
      )}
      <MenuItem icon={<LogOut />} onSelect={() => void signOut().catch((err: unknown) => toast.failure(err))}>
        {me ? s.signOut : s.logout}
      </MenuItem>
    </Menu>
  );
}
