import { language } from "@/lib/i18n";

/** "3m", "5h", "2d", then the date: an age in the space of a few letters. */
export function compactAge(time: string, now = Date.now()): string {
  const minutes = Math.floor((now - Date.parse(time)) / 60_000);
  if (Number.isNaN(minutes)) return "";
  if (minutes < 1) return "<1m";
  if (minutes < 60) return `${minutes}m`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)}h`;
  if (minutes < 7 * 24 * 60) return `${Math.floor(minutes / (24 * 60))}d`;
  return new Date(time).toLocaleDateString(language(), { day: "numeric", month: "numeric" });
}
