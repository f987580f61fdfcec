// Three things to try at once. Each brings a small file and does something with
// it: by the model if there is one, otherwise by cells that are ready to run.
import { send, sessionPath } from "@/api/client";
import type { Language } from "@/lib/i18n";
import type { SessionActions } from "./actions";
import type { SessionStore } from "./store";

interface Texts {
  title: string;
  detail: string;
  prompt: string;
  note: string;
}

export interface Example {
  id: "sales" | "log" | "fit";
  file: string;
  content: () => string;
  cells: string[];
  texts: Record<Language, Texts>;
}

/** Numbers that look like chance and are the same each time. */
function chance(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

function salesCSV(): string {
  const random = chance(7);
  const products: [string, number, number][] = [
    ["Lamp", 42, 0.35],
    ["Desk", 18, -0.05],
    ["Chair", 31, 0.1],
    ["Shelf", 23, 0.18],
  ];
  const rows = ["month,product,region,units,price"];
  for (let month = 0; month < 24; month++) {
    for (const [product, base, season] of products) {
      for (const [region, share] of [
        ["North", 1],
        ["South", 0.7],
        ["West", 0.85],
      ] as const) {
        const wave = 1 + season * Math.cos((2 * Math.PI * month) / 12);
        const units = Math.round(base * share * wave * (1 + month * 0.012) * (0.85 + 0.3 * random()));
        const price = { Lamp: 39, Desk: 249, Chair: 119, Shelf: 89 }[product] ?? 0;
        rows.push(
          `${2024 + Math.floor(month / 12)}-${String((month % 12) + 1).padStart(2, "0")},${product},${region},${units},${price}`,
        );
      }
    }
  }
  return `${rows.join("\n")}\n`;
}

function accessLog(): string {
  const random = chance(11);
  const paths = [
    "/",
    "/",
    "/",
    "/products",
    "/products/lamp",
    "/products/desk",
    "/cart",
    "/checkout",
    "/about",
    "/favicon.ico",
  ];
  const lines: string[] = [];
  for (let i = 0; i < 900; i++) {
    const minute = Math.floor((i / 900) * 24 * 60);
    const hour = Math.floor(minute / 60);
    const path = paths[Math.floor(random() * paths.length)] as string;
    const bad = hour === 14 && random() < 0.5; // the hour in which something broke
    const status = bad ? 503 : random() < 0.04 ? 404 : 200;
    const ms = Math.round((bad ? 1800 : 60) * (0.5 + random()) + (path === "/checkout" ? 140 : 0));
    const ip = `10.0.${Math.floor(random() * 4)}.${Math.floor(random() * 60) + 1}`;
    const time = `${String(hour).padStart(2, "0")}:${String(minute % 60).padStart(2, "0")}:${String(Math.floor(random() * 60)).padStart(2, "0")}`;
    lines.push(`${ip} [2026-03-02 ${time}] "GET ${path}" ${status} ${ms}ms`);
  }
  return `${lines.join("\n")}\n`;
}

function measurementsCSV(): string {
  const random = chance(3);
  const rows = ["seconds,volts"];
  for (let i = 0; i <= 160; i++) {
    const t = i / 20;
    const noise = (random() + random() + random() - 1.5) * 0.16;
    rows.push(
      `${t.toFixed(2)},${(0.4 + 2.1 * Math.exp(-t / 3.2) * Math.cos(2 * Math.PI * 0.9 * t + 0.4) + noise).toFixed(4)}`,
    );
  }
  return `${rows.join("\n")}\n`;
}

export const examples: Example[] = [
  {
    id: "sales",
    file: "sales.csv",
    content: salesCSV,
    cells: [
      `import pandas as pd

sales = pd.read_csv("sales.csv", parse_dates=["month"])
sales["revenue"] = sales.units * sales.price
sales`,
      `import matplotlib.pyplot as plt

by_month = sales.pivot_table(index="month", columns="product", values="revenue", aggfunc="sum")
ax = (by_month / 1000).plot(figsize=(9, 4), linewidth=2)
ax.set(title="Revenue by product", xlabel="", ylabel="thousand €")
ax.spines[["top", "right"]].set_visible(False)
plt.show()`,
      `year = sales.groupby([sales.month.dt.year.rename("year"), "product"]).revenue.sum().unstack(0)
year["growth %"] = ((year[2025] / year[2024] - 1) * 100).round(1)
year.sort_values("growth %", ascending=False)`,
    ],
    texts: {
      en: {
        title: "Read a table",
        detail: "Two years of sales: what grows, and when?",
        prompt:
          "Look at sales.csv: plot the revenue of each product by month, and tell me which product grows fastest and which one is seasonal.",
        note: "Two years of a small shop's sales, from `sales.csv`. Change anything and run it again.",
      },
      de: {
        title: "Eine Tabelle lesen",
        detail: "Verkäufe aus zwei Jahren: Was wächst, und wann?",
        prompt:
          "Sieh Dir sales.csv an: Zeichne den Umsatz jedes Produkts nach Monaten, und sag mir, welches am schnellsten wächst und welches von der Jahreszeit abhängt.",
        note: "Zwei Jahre Verkäufe eines kleinen Ladens, aus `sales.csv`. Ändere, was Du willst, und führ es wieder aus.",
      },
    },
  },
  {
    id: "log",
    file: "access.log",
    content: accessLog,
    cells: [
      `import re
import pandas as pd

line = re.compile(r'(\\S+) \\[(.+?)\\] "GET (\\S+)" (\\d+) (\\d+)ms')
log = pd.DataFrame(
    [line.match(text).groups() for text in open("access.log")],
    columns=["address", "time", "path", "status", "ms"],
).astype({"time": "datetime64[ns]", "status": int, "ms": int})
log`,
      `import matplotlib.pyplot as plt

hours = log.groupby([log.time.dt.hour, log.status]).size().unstack(fill_value=0)
ax = hours.plot.bar(stacked=True, figsize=(9, 3.6), width=0.85, color=["#5b8c6f", "#d0a24c", "#c0483c"])
ax.set(title="Requests by hour and status", xlabel="hour", ylabel="requests")
ax.spines[["top", "right"]].set_visible(False)
plt.show()`,
      `from tqdm.auto import tqdm

slowest = {}
for path, requests in tqdm(log.groupby("path")):
    slowest[path] = requests.ms.quantile([0.5, 0.95]).round().astype(int).tolist()

pd.DataFrame(slowest, index=["median ms", "95 % ms"]).T.sort_values("95 % ms", ascending=False)`,
    ],
    texts: {
      en: {
        title: "Search a log",
        detail: "900 requests: when did the server fail?",
        prompt:
          "access.log has a day of requests to a web server. Find out when it had trouble, how bad it was and which paths are slow. Show a chart.",
        note: "A day of requests to a web server, from `access.log`. Something broke: find the hour.",
      },
      de: {
        title: "Ein Protokoll durchsuchen",
        detail: "900 Anfragen: Wann ging etwas schief?",
        prompt:
          "access.log enthält einen Tag Anfragen an einen Webserver. Finde heraus, wann es Schwierigkeiten gab, wie schlimm sie waren und welche Pfade langsam sind. Zeig es in einem Diagramm.",
        note: "Ein Tag Anfragen an einen Webserver, aus `access.log`. Etwas ging kaputt: Finde die Stunde.",
      },
    },
  },
  {
    id: "fit",
    file: "measurements.csv",
    content: measurementsCSV,
    cells: [
      `import numpy as np
import pandas as pd
from scipy.optimize import curve_fit

data = pd.read_csv("measurements.csv")

def swing(t, offset, height, decay, frequency, phase):
    return offset + height * np.exp(-t / decay) * np.cos(2 * np.pi * frequency * t + phase)

found, covariance = curve_fit(swing, data.seconds, data.volts, p0=[0, 2, 2, 1, 0])
pd.DataFrame({"value": found, "±": np.sqrt(np.diag(covariance))},
             index=["offset", "height", "decay", "frequency", "phase"]).round(4)`,
      `import matplotlib.pyplot as plt

t = np.linspace(0, data.seconds.max(), 500)
fig, ax = plt.subplots(figsize=(9, 4))
ax.plot(data.seconds, data.volts, ".", color="#8a94a6", label="measured")
ax.plot(t, swing(t, *found), color="#2c4fa8", linewidth=2, label="fitted")
ax.set(xlabel="seconds", ylabel="volts", title="A damped oscillation")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False)
plt.show()`,
      `from IPython.display import Math

a, h, d, f, p = found.round(2)
Math(rf"V(t) = {a} + {h}\\, e^{{-t/{d}}} \\cos(2\\pi \\cdot {f}\\, t + {p})")`,
    ],
    texts: {
      en: {
        title: "Fit a curve",
        detail: "Noisy measurements: which law is behind them?",
        prompt:
          "measurements.csv has volts over seconds, with noise. Find the law behind them, fit it, plot both and give me the formula with its uncertainties.",
        note: "A damped oscillation with noise, from `measurements.csv`: fit it, plot it, write down the formula.",
      },
      de: {
        title: "Eine Kurve anpassen",
        detail: "Verrauschte Messwerte: Welches Gesetz steckt dahinter?",
        prompt:
          "measurements.csv enthält Volt über Sekunden, mit Rauschen. Finde das Gesetz dahinter, passe es an, zeichne beides und nenn mir die Formel mit ihren Unsicherheiten.",
        note: "Eine gedämpfte Schwingung mit Rauschen, aus `measurements.csv`: anpassen, zeichnen, die Formel aufschreiben.",
      },
    },
  },
];

/** Puts an example's file into the session, and lets the model or its cells work on it. */
export async function startExample(
  example: Example,
  {
    store,
    actions,
    language,
    model,
  }: { store: SessionStore; actions: SessionActions; language: Language; model: boolean },
): Promise<void> {
  const id = await store.ensure();
  const path = `/workspace/${example.file}`;
  const texts = example.texts[language];
  const upload = send("PUT", sessionPath(id, "files", "content"), {
    query: { path },
    body: new Blob([example.content()]),
    headers: { "Content-Type": "application/octet-stream" },
  });
  if (model) {
    await upload;
    await actions.send({ text: texts.prompt, files: [path] });
    return;
  }
  void actions.updateSession({ title: texts.title });
  const cells: string[] = [];
  await actions.addItem({ kind: "note", text: texts.note });
  for (const code of example.cells) {
    const item = await actions.addItem({ kind: "cell", code });
    if (!item) return; // said so already
    cells.push(item.id);
  }
  await upload;
  await actions.run(cells);
}
