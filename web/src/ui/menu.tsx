import { Check, ChevronRight } from "lucide-react";
import { DropdownMenu as Radix } from "radix-ui";
import type { ComponentProps, ReactNode } from "react";
import { cx } from "@/lib/cx";
import { Kbd } from "./kbd";

const panel = "appear z-50 min-w-44 max-w-80 overflow-auto rounded-lg border bg-raised p-1 shadow-pop";
const row =
  "flex min-h-8 cursor-default select-none items-center gap-2.5 rounded-md px-2 py-1 text-sm outline-none data-[disabled]:opacity-45 data-[highlighted]:bg-hover data-[state=open]:bg-hover [&_svg]:size-4 [&_svg]:shrink-0";

export interface MenuProps {
  /** The button that opens it; one element that can hold a ref. */
  trigger: ReactNode;
  children: ReactNode;
  align?: "start" | "center" | "end";
  side?: "top" | "bottom" | "left" | "right";
  open?: boolean;
  onOpenChange?: (open: boolean) => void;
  className?: string;
}

export function Menu({ trigger, children, align = "end", side = "bottom", className, ...rest }: MenuProps) {
  return (
    <Radix.Root modal={false} {...rest}>
      <Radix.Trigger asChild>{trigger}</Radix.Trigger>
      <Radix.Portal>
        <Radix.Content
          align={align}
          side={side}
          sideOffset={4}
          collisionPadding={8}
          className={cx(panel, "max-h-(--radix-dropdown-menu-content-available-height)", className)}
        >
          {children}
        </Radix.Content>
      </Radix.Portal>
    </Radix.Root>
  );
}

export interface MenuItemProps extends Omit<ComponentProps<typeof Radix.Item>, "title"> {
  icon?: ReactNode;
  keys?: string;
  danger?: boolean;
}

export function MenuItem({ icon, keys, danger, children, className, ...rest }: MenuItemProps) {
  return (
    <Radix.Item className={cx(row, danger ? "text-danger" : "[&>svg:first-child]:text-muted", className)} {...rest}>
      {icon}
      <span className="min-w-0 flex-1 truncate">{children}</span>
      {keys && <Kbd keys={keys} />}
    </Radix.Item>
  );
}

/** An entry that is a link, such as a download. */
export function MenuLink({
  icon,
  href,
  download,
  children,
}: {
  icon?: ReactNode;
  href: string;
  download?: boolean;
  children: ReactNode;
}) {
  return (
    <Radix.Item asChild className={row}>
      <a href={href} download={download ? "" : undefined}>
        {icon}
        <span className="min-w-0 flex-1 truncate">{children}</span>
      </a>
    </Radix.Item>
  );
}

export function MenuChoice<T extends string>({
  value,
  onChange,
  options,
}: {
  value: T;
  onChange: (value: T) => void;
  options: { value: T; label: ReactNode; detail?: string }[];
}) {
  return (
    <Radix.RadioGroup value={value} onValueChange={(v) => onChange(v as T)}>
      {options.map((option) => (
        <Radix.RadioItem key={option.value} value={option.value} className={row}>
          <span className="min-w-0 flex-1">
            <span className="block truncate">{option.label}</span>
            {option.detail && <span className="block truncate text-muted text-xs">{option.detail}</span>}
          </span>
          <span className="flex size-4 shrink-0 items-center">
            <Radix.ItemIndicator>
              <Check className="text-accent" />
            </Radix.ItemIndicator>
          </span>
        </Radix.RadioItem>
      ))}
    </Radix.RadioGroup>
  );
}

export function MenuSub({ icon, label, children }: { icon?: ReactNode; label: string; children: ReactNode }) {
  return (
    <Radix.Sub>
      <Radix.SubTrigger className={row}>
        {icon}
        <span className="min-w-0 flex-1 truncate">{label}</span>
        <ChevronRight className="text-muted" />
      </Radix.SubTrigger>
      <Radix.Portal>
        <Radix.SubContent sideOffset={4} collisionPadding={8} className={panel}>
          {children}
        </Radix.SubContent>
      </Radix.Portal>
    </Radix.Sub>
  );
}

export function MenuLabel({ children }: { children: ReactNode }) {
  return <Radix.Label className="px-2 pt-1.5 pb-1 text-muted text-xs">{children}</Radix.Label>;
}

export function MenuLine() {
  return <Radix.Separator className="-mx-1 my-1 h-px bg-line" />;
}
