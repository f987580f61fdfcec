// Reads the body of api.open-meteo.com/v1/forecast, as the model's weather tool
// gets it: current, hourly and daily values of the place's own time.
import type { Json } from "@/api/types";

export interface Hour {
  /** "14:00", in the time of the place. */
  time: string;
  temperature: number;
  day: boolean;
}

export interface Weather {
  temperature: number;
  unit: string;
  /** Whether the sun is up now. */
  day: boolean;
  high: number;
  low: number;
  sunrise: string;
  sunset: string;
  /** Now, and the hours that follow. */
  hours: Hour[];
  place: string;
}

type Body = { [key: string]: Json };

const object = (value: Json | undefined): Body =>
  value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
const texts = (value: Json | undefined): string[] =>
  Array.isArray(value) ? value.filter((v) => typeof v === "string") : [];

const clock = (time: string) => time.slice(11, 16);

/** The weather in a tool's result, or null if that is no such body. */
export function readWeather(result: Json | undefined, hours = 12): Weather | null {
  const body = object(result);
  const current = object(body.current);
  const now = current.time;
  if (typeof now !== "string" || typeof current.temperature_2m !== "number") return null;
  const units = object(body.current_units);
  const hourly = object(body.hourly);
  const times = texts(hourly.time);
  const temperatures = Array.isArray(hourly.temperature_2m) ? hourly.temperature_2m : [];
  const daily = object(body.daily);
  const sunrises = texts(daily.sunrise);
  const sunsets = texts(daily.sunset);
  // Times of one place in one form: they compare as text.
  const up = (time: string) => {
    const date = time.slice(0, 10);
    const rise = sunrises.find((t) => t.startsWith(date));
    const set = sunsets.find((t) => t.startsWith(date));
    if (rise && set) return time >= rise && time < set;
    return time.slice(11, 13) >= "06" && time.slice(11, 13) < "20";
  };
  const first = times.findLastIndex((t) => t <= now);
  const strip: Hour[] = [];
  for (let i = Math.max(first, 0); i < times.length && strip.length < hours; i++) {
    const time = times[i];
    const temperature = temperatures[i];
    if (time !== undefined && typeof temperature === "number") {
      strip.push(
        i === first
          ? { time: clock(time), temperature: current.temperature_2m, day: up(now) }
          : { time: clock(time), temperature, day: up(time) },
      );
    }
  }
  const today = times.flatMap((t, i) => {
    const temperature = temperatures[i];
    return t.slice(0, 10) === now.slice(0, 10) && typeof temperature === "number" ? [temperature] : [];
  });
  const zone = typeof body.timezone === "string" ? body.timezone : "";
  return {
    temperature: current.temperature_2m,
    unit: typeof units.temperature_2m === "string" ? units.temperature_2m : "°C",
    day: up(now),
    high: Math.max(current.temperature_2m, ...today),
    low: Math.min(current.temperature_2m, ...today),
    sunrise: clock(sunrises.find((t) => t.startsWith(now.slice(0, 10))) ?? ""),
    sunset: clock(sunsets.find((t) => t.startsWith(now.slice(0, 10))) ?? ""),
    hours: strip,
    place: zone.includes("/") ? (zone.split("/").at(-1)?.replaceAll("_", " ") ?? "") : "",
  };
}
