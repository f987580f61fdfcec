import { useStrings } from "./strings";
import { useUnseenFiles } from "./unseen";

/** How many files wait to be looked at, beside the name of their tab. */
export function UnseenCount() {
  const s = useStrings();
  const n = useUnseenFiles();
  if (n === 0) return null;
  return (
    <span
      title={s.unseen(n)}
      className="min-w-4.5 rounded-full bg-accent px-1 text-center font-medium text-2xs text-on-accent leading-4.5 tabular-nums"
    >
      {n}
      <span className="sr-only"> {s.unseenShort}</span>
    </span>
  );
}

/** That there are any, on the button of the closed panel. */
export function UnseenDot() {
  const s = useStrings();
  const n = useUnseenFiles();
  if (n === 0) return null;
  return (
    <span
      role="img"
      aria-label={s.unseen(n)}
      className="pointer-events-none absolute top-1.5 right-1.5 size-2 rounded-full bg-accent ring-2 ring-surface"
    />
  );
}
