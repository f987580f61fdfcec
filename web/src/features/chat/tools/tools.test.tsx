import { render, screen } from "@testing-library/react";
import { describe, expect, it } from "vitest";
import type { Item, Json } from "@/api/types";
import { readFiles } from "./listing";
import { ToolCard } from "./ToolCard";
import { readWeather } from "./weather";

// The shape of open-meteo's answer.
function body(now: string, change: Record<string, Json> = {}): Json {
  return {
    latitude: 52.52,
    timezone: "Europe/Berlin",
    current_units: { temperature_2m: "°C" },
    current: { time: now, temperature_2m: 7.6 },
    hourly: {
      time: Array.from(
        { length: 48 },
        (_, i) => `2026-11-${23 + Math.floor(i / 24)}T${String(i % 24).padStart(2, "0")}:00`,
      ),
      temperature_2m: Array.from({ length: 48 }, (_, i) => (i < 24 ? i / 2 : 99)),
    },
    daily: {
      sunrise: ["2026-11-23T07:38", "2026-11-24T07:40"],
      sunset: ["2026-11-23T16:01", "2026-11-24T16:00"],
    },
    ...change,
  };
}

describe("readWeather", () => {
  it("begins with the hour that is now and tells day from night", () => {
    const weather = readWeather(body("2026-11-23T14:45"));
    expect(weather).toMatchObject({
      temperature: 7.6,
      unit: "°C",
      day: true,
      high: 11.5,
      low: 0,
      sunrise: "07:38",
      place: "Berlin",
    });
    expect(weather?.hours.map((h) => h.time)).toEqual([
      "14:00",
      "15:00",
      "16:00",
      "17:00",
      "18:00",
      "19:00",
      "20:00",
      "21:00",
      "22:00",
      "23:00",
      "00:00",
      "01:00",
    ]);
    expect(weather?.hours.map((h) => h.day)).toEqual([true, true, true, ...Array(9).fill(false)]);
  });
  it("is night before sunrise and from sunset on", () => {
    expect(readWeather(body("2026-11-23T07:30"))?.day).toBe(false);
    expect(readWeather(body("2026-11-23T16:01"))?.day).toBe(false);
    expect(readWeather(body("2026-11-23T07:38"))?.day).toBe(true);
  });
  it("does without hours and sun, and refuses what is no weather", () => {
    expect(readWeather(body("2026-11-23T12:00", { hourly: null, daily: [] }))).toMatchObject({
      day: true,
      hours: [],
      sunrise: "",
    });
    for (const value of [
      null,
      undefined,
      "x",
      3,
      [],
      {},
      { current: {} },
      { current: { time: 5, temperature_2m: 1 } },
    ] as Json[]) {
      expect(readWeather(value)).toBeNull();
    }
  });
});

describe("readFiles", () => {
  it("reads the tree that the model gets", () => {
    const files = readFiles(
      "/uploaded_files/\n  a file.csv  1.2 KB\n  raw/\n    x.bin  3 B\n  link → /etc/x\n/workspace/ (empty)\n… there is more: list a folder by its path",
    );
    expect(files).toEqual([
      { name: "/uploaded_files", path: "/uploaded_files", folder: true, depth: 0, size: "" },
      { name: "a file.csv", path: "/uploaded_files/a file.csv", folder: false, depth: 1, size: "1.2 KB" },
      { name: "raw", path: "/uploaded_files/raw", folder: true, depth: 1, size: "" },
      { name: "x.bin", path: "/uploaded_files/raw/x.bin", folder: false, depth: 2, size: "3 B" },
      { name: "link", path: "/uploaded_files/link", folder: false, depth: 1, size: "" },
      { name: "/workspace", path: "/workspace", folder: true, depth: 0, size: "" },
    ]);
    expect(readFiles({ files: "/workspace/ (empty)" })).toHaveLength(1);
    expect(readFiles("no such folder")).toBeNull();
    expect(readFiles({})).toBeNull();
  });
});

describe("ToolCard", () => {
  const item = (tool: Item["tool"], status: Item["status"] = "ok"): Item => ({
    id: "itm_1",
    kind: "tool",
    status,
    tool,
    created_at: "",
    updated_at: "",
  });
  it("shows the weather", () => {
    render(<ToolCard item={item({ id: "1", name: "get_current_weather", result: body("2026-11-23T20:00") })} />);
    expect(screen.getByRole("region", { name: "Weather" })).toHaveAttribute("data-day", "false");
    expect(screen.getByText("8°C")).toBeInTheDocument();
    expect(screen.getByText("Now")).toBeInTheDocument();
  });
  it("says that there is none", () => {
    render(<ToolCard item={item({ id: "1", name: "get_current_weather", result: null }, "error")} />);
    expect(screen.getByText("The weather service gave no answer.")).toBeInTheDocument();
  });
  it("shows arguments, results and errors of any other tool as text", () => {
    const { container } = render(
      <ToolCard
        item={item({ id: "1", name: "other", arguments: { a: "<b>x</b>" }, error: "it broke <i>" }, "error")}
      />,
    );
    expect(container.querySelector("b, i")).toBeNull();
    expect(screen.getByText("it broke <i>")).toBeInTheDocument();
    expect(container.textContent).toContain('"a": "<b>x</b>"');
  });
});
