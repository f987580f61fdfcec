import { useQuery } from "@tanstack/react-query";
import {
  Ban,
  CircleCheck,
  Link as LinkIcon,
  MoreHorizontal,
  Plus,
  ShieldCheck,
  ShieldOff,
  UserMinus,
} from "lucide-react";
import { useState } from "react";
import { call } from "@/api/client";
import { formatAgo } from "@/lib/format";
import { Badge, Button, ConfirmDialog, Dialog, EmptyState, IconButton, Menu, MenuItem, MenuLine, Select } from "@/ui";
import { may } from "./me";
import { OrganisationPicker } from "./OrganisationPicker";
import { useLooked } from "./organisation";
import {
  CopyLine,
  Facts,
  Field,
  FormDialog,
  Found,
  formatTime,
  Row,
  Rows,
  Section,
  Shown,
  text,
  useChange,
} from "./parts";
import { useStrings } from "./strings";
import type { Me, Role, User, UserLink } from "./types";
import { roleIn, rolesToGive, whyFixed } from "./users";

type Question = { what: "disable" | "remove" | "operator"; user: User };

export function useUsers(organisation: string, enabled = true) {
  return useQuery({
    queryKey: ["users", organisation],
    queryFn: ({ signal }) =>
      call<{ users: User[] | null }>("GET", "/v1/users", {
        query: { organisation: organisation || undefined },
        signal,
      }).then((answer) => answer.users ?? []),
    enabled,
  });
}

const pathOf = (user: User) => `/v1/users/${encodeURIComponent(user.id)}`;

export default function Users({ me }: { me: Me }) {
  const s = useStrings();
  const change = useChange("users", "audit", "organisations");
  const looked = useLooked((state) => state.organisation);
  const list = useUsers(looked);
  const [making, setMaking] = useState(false);
  const [link, setLink] = useState<{ user: User; link: UserLink } | null>(null);
  const [question, setQuestion] = useState<Question | null>(null);
  // Of which organisation roles are shown and changed; "": of none, when all are looked at.
  const organisation = looked === "*" ? "" : looked || (me.organisation?.organisation_id ?? "");

  const update = (user: User, body: Record<string, unknown>) =>
    void change(() => call("PATCH", pathOf(user), { body: { ...body, organisation_id: organisation || undefined } }));
  const makeLink = (user: User) =>
    void change(async () => setLink({ user, link: await call<UserLink>("POST", `${pathOf(user)}/link`) }));
  const answers: Record<Question["what"], { title: string; text: string; confirm: string; act: (user: User) => void }> =
    {
      disable: {
        title: s.disableTitle(question?.user.name ?? ""),
        text: s.disableText,
        confirm: s.disable,
        act: (user) => update(user, { disabled: true }),
      },
      remove: {
        title: s.removeTitle(question?.user.name ?? ""),
        text: s.removeText,
        confirm: s.removeUser,
        act: (user) =>
          void change(() => call("DELETE", pathOf(user), { query: { organisation: organisation || undefined } })),
      },
      operator: {
        title: s.operatorTitle(question?.user.name ?? ""),
        text: s.operatorText,
        confirm: s.makeOperator,
        act: (user) => update(user, { operator: true }),
      },
    };
  const asked = question && answers[question.what];

  return (
    <Section
      title={s.users}
      text={s.usersText}
      action={
        <div className="flex flex-wrap items-center gap-2">
          <OrganisationPicker me={me} />
          {organisation !== "" && (
            <Button variant="primary" onClick={() => setMaking(true)}>
              <Plus className="size-4" aria-hidden />
              {s.newUser}
            </Button>
          )}
        </div>
      }
    >
      <Shown query={list}>
        {(users) =>
          users.length === 0 ? (
            <div className="rounded-lg border bg-raised py-6">
              <EmptyState title={s.noMatchingUsers}>{s.noMatchingUsersText}</EmptyState>
            </div>
          ) : (
            <Found list={users} textOf={(user) => `${user.name} ${user.email} ${roleIn(user, organisation) ?? ""}`}>
              {(found) => (
                <Rows label={s.users}>
                  {found.map((user) => (
                    <UserRow
                      key={user.id}
                      me={me}
                      user={user}
                      organisation={organisation}
                      onRole={(role) => update(user, { role })}
                      onLink={() => makeLink(user)}
                      onEnable={() => update(user, { disabled: false })}
                      onOperatorNoMore={() => update(user, { operator: false })}
                      onAsk={(what) => setQuestion({ what, user })}
                    />
                  ))}
                </Rows>
              )}
            </Found>
          )
        }
      </Shown>
      {making && (
        <NewUserDialog
          me={me}
          organisation={organisation}
          onClose={() => setMaking(false)}
          onMade={(user) => {
            setMaking(false);
            makeLink(user);
          }}
        />
      )}
      {link && (
        <Dialog
          open
          onOpenChange={(open) => !open && setLink(null)}
          title={s.linkTitle(link.user.name)}
          description={s.linkText(formatTime(link.link.expires_at))}
          size="md"
          footer={
            <Button variant="primary" onClick={() => setLink(null)}>
              {s.close}
            </Button>
          }
        >
          <CopyLine label={s.link} text={link.link.url} focus />
        </Dialog>
      )}
      <ConfirmDialog
        open={asked !== null}
        onOpenChange={(open) => !open && setQuestion(null)}
        title={asked?.title ?? ""}
        description={asked?.text ?? ""}
        confirm={asked?.confirm ?? ""}
        danger={question?.what !== "operator"}
        onConfirm={() => question && asked?.act(question.user)}
      />
    </Section>
  );
}

function UserRow({
  me,
  user,
  organisation,
  onRole,
  onLink,
  onEnable,
  onOperatorNoMore,
  onAsk,
}: {
  me: Me;
  user: User;
  organisation: string;
  onRole: (role: Role) => void;
  onLink: () => void;
  onEnable: () => void;
  onOperatorNoMore: () => void;
  onAsk: (what: Question["what"]) => void;
}) {
  const s = useStrings();
  const role = roleIn(user, organisation);
  const why = whyFixed(me, user, organisation);
  const give = rolesToGive(me);
  return (
    <Row dim={user.disabled}>
      <div className="min-w-0 flex-1 basis-64">
        <p className="flex flex-wrap items-center gap-x-2 gap-y-1">
          <span className="break-words font-medium text-sm">{user.name}</span>
          {user.id === me.user_id && <Badge>{s.you}</Badge>}
          {user.operator && <Badge tone="accent">{s.operator}</Badge>}
          {user.disabled && <Badge tone="danger">{s.disabled}</Badge>}
          {!user.last_sign_in_at && <Badge tone="warning">{s.invited}</Badge>}
        </p>
        <Facts
          facts={[
            <span key="email" className="break-all">
              {user.email}
            </span>,
            user.last_sign_in_at && s.lastSignIn(formatAgo(user.last_sign_in_at)),
            organisation === "" && (user.memberships ?? []).map((m) => `${m.name} (${s.roles[m.role]})`).join(", "),
            why !== "" && why !== "self" && s.fixed[why],
          ]}
        />
      </div>
      <div className="flex items-center gap-1.5">
        {role &&
          (why === "" ? (
            <Select<Role>
              label={s.roleOf(user.name)}
              value={role}
              onChange={onRole}
              options={(give.includes(role) ? give : [...give, role]).map((value) => ({
                value,
                label: s.roles[value],
              }))}
            />
          ) : (
            <span className="text-sm sm:px-2" title={s.fixed[why]}>
              {s.roles[role]}
            </span>
          ))}
        {why === "" && (
          <Menu
            trigger={
              <IconButton label={s.more(user.name)} size="sm" tip={false}>
                <MoreHorizontal />
              </IconButton>
            }
          >
            <MenuItem icon={<LinkIcon />} onSelect={onLink}>
              {s.makeLink}
            </MenuItem>
            {may(me, "operate") &&
              (user.operator ? (
                <MenuItem icon={<ShieldOff />} onSelect={onOperatorNoMore}>
                  {s.takeOperator}
                </MenuItem>
              ) : (
                <MenuItem icon={<ShieldCheck />} onSelect={() => onAsk("operator")}>
                  {s.makeOperator}
                </MenuItem>
              ))}
            <MenuLine />
            {user.disabled ? (
              <MenuItem icon={<CircleCheck />} onSelect={onEnable}>
                {s.enable}
              </MenuItem>
            ) : (
              <MenuItem icon={<Ban />} danger onSelect={() => onAsk("disable")}>
                {s.disable}
              </MenuItem>
            )}
            {role && (
              <MenuItem icon={<UserMinus />} danger onSelect={() => onAsk("remove")}>
                {s.removeUser}
              </MenuItem>
            )}
          </Menu>
        )}
      </div>
    </Row>
  );
}

function NewUserDialog({
  me,
  organisation,
  onClose,
  onMade,
}: {
  me: Me;
  organisation: string;
  onClose: () => void;
  onMade: (user: User) => void;
}) {
  const s = useStrings();
  const [role, setRole] = useState<Role>("member");
  return (
    <FormDialog
      title={s.newUser}
      description={s.newUserText}
      confirm={s.makeUser}
      onClose={onClose}
      onSubmit={async (data) => {
        const email = text(data, "email");
        if (email === "") return s.emailMissing;
        const body = {
          email,
          name: text(data, "name"),
          role,
          organisation_id: organisation,
          ...(data.get("operator") ? { operator: true } : {}),
        };
        onMade(await call<User>("POST", "/v1/users", { body }));
        return undefined;
      }}
    >
      <Field label={s.email} name="email" type="email" autoComplete="off" autoCapitalize="none" />
      <Field label={s.name} name="name" autoComplete="off" />
      <div>
        <div className="flex items-center justify-between gap-3">
          <span className="font-medium text-sm">{s.role}</span>
          <Select<Role>
            label={s.role}
            value={role}
            onChange={setRole}
            options={rolesToGive(me).map((value) => ({ value, label: s.roles[value] }))}
          />
        </div>
        <p className="mt-1 text-muted text-xs">{s.roleTexts[role]}</p>
      </div>
      {may(me, "operate") && (
        <label className="flex items-start gap-2 text-sm">
          <input type="checkbox" name="operator" className="mt-0.5 size-4 shrink-0 accent-accent" />
          {s.operatorLabel}
        </label>
      )}
    </FormDialog>
  );
}
