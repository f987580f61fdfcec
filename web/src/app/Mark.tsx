/** The sign: a C that holds a sun. */
export function Mark({ className }: { className?: string }) {
  return (
    <svg viewBox="0 0 32 32" className={className} aria-hidden="true">
      <path
        d="M25.2 8.6a12 12 0 1 0 0 14.8"
        fill="none"
        className="stroke-accent"
        strokeWidth="3.6"
        strokeLinecap="round"
      />
      <circle cx="17.2" cy="16" r="4.2" className="fill-gold" />
    </svg>
  );
}

export function Wordmark() {
  return (
    <span className="flex items-center gap-2">
      <Mark className="size-5.5" />
      <span className="font-semibold text-[0.9375rem] tracking-[-0.01em]">Caesarion</span>
    </span>
  );
}
