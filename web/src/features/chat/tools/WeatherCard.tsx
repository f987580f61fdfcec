import { Moon, Sun, Sunrise, Sunset } from "lucide-react";
import type { Json } from "@/api/types";
import { cx } from "@/lib/cx";
import { useStrings } from "../strings";
import { readWeather } from "./weather";

/** Answer of the weather tool: now, the next hours, light or dark by the sun of the place. */
export function WeatherCard({ result }: { result: Json | undefined }) {
  const s = useStrings();
  const weather = readWeather(result);
  if (!weather) return null;
  const degrees = (value: number) => `${Math.round(value)}${weather.unit}`;
  const short = (value: number) => `${Math.round(value)}°`;
  const Icon = weather.day ? Sun : Moon;
  return (
    <section
      aria-label={s.tool.weather}
      data-day={weather.day}
      className={cx(
        "w-full max-w-130 overflow-hidden rounded-2xl text-white shadow-card",
        weather.day ? "bg-linear-to-br from-[#1f5fa8] to-[#2c6f9e]" : "bg-linear-to-br from-[#1b2145] to-[#30305f]",
      )}
    >
      <div className="flex items-center gap-4 px-5 pt-4">
        <Icon
          className={cx(
            "size-12 shrink-0",
            weather.day ? "fill-[#ffd666] text-[#ffd666]" : "fill-[#d8defc] text-[#d8defc]",
          )}
          aria-hidden
        />
        <p className="font-light text-5xl tabular-nums">{degrees(weather.temperature)}</p>
        <div className="ml-auto text-right text-sm">
          {weather.place ? <p className="font-medium">{weather.place}</p> : null}
          <p className="tabular-nums">
            <span className="sr-only">{s.tool.high(degrees(weather.high))}, </span>
            <span className="sr-only">{s.tool.low(degrees(weather.low))}</span>
            <span aria-hidden>
              ↑ {short(weather.high)} ↓ {short(weather.low)}
            </span>
          </p>
        </div>
      </div>
      {weather.hours.length > 0 ? (
        <ol
          aria-label={s.tool.hourly}
          // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
          tabIndex={0}
          className="mt-3 flex justify-between gap-1 overflow-x-auto px-3 [scrollbar-width:none]"
        >
          {weather.hours.map((hour, i) => (
            <li key={hour.time} className="flex w-12 shrink-0 flex-col items-center gap-1 rounded-lg py-1.5 text-xs">
              <span>{i === 0 ? s.tool.now : hour.time}</span>
              {hour.day ? (
                <Sun className="size-4 fill-[#ffd666] text-[#ffd666]" aria-hidden />
              ) : (
                <Moon className="size-4 fill-[#d8defc] text-[#d8defc]" aria-hidden />
              )}
              <span className="font-medium text-sm tabular-nums">{short(hour.temperature)}</span>
            </li>
          ))}
        </ol>
      ) : null}
      <div className="mt-2 flex min-h-8 items-center justify-between bg-black/20 px-5 py-1.5 text-xs">
        {weather.sunrise ? (
          <span className="inline-flex items-center gap-1.5">
            <Sunrise className="size-3.5" aria-hidden />
            {s.tool.sunrise(weather.sunrise)}
          </span>
        ) : null}
        {weather.sunset ? (
          <span className="inline-flex items-center gap-1.5">
            <Sunset className="size-3.5" aria-hidden />
            {s.tool.sunset(weather.sunset)}
          </span>
        ) : null}
      </div>
    </section>
  );
}
