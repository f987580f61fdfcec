/** "Firefox, Windows" of what a browser calls itself; its own words if they are of no known sort. */
export function browserName(agent: string): string {
  const browser = (
    [
      ["Edge", /\bEdgA?\//],
      ["Opera", /\bOPR\//],
      ["Samsung Internet", /\bSamsungBrowser\//],
      ["Firefox", /\b(Firefox|FxiOS)\//],
      ["Chrome", /\b(Headless)?(Chrome|CriOS|Chromium)\//],
      ["Safari", /\bVersion\/[\d.]+.* Safari\//],
    ] as const
  ).find(([, sign]) => sign.test(agent))?.[0];
  const system = (
    [
      ["iPhone", /\biPhone\b/],
      ["iPad", /\biPad\b/],
      ["Android", /\bAndroid\b/],
      ["Windows", /\bWindows\b/],
      ["macOS", /\bMac OS X\b/],
      ["ChromeOS", /\bCrOS\b/],
      ["Linux", /\bLinux\b/],
    ] as const
  ).find(([, sign]) => sign.test(agent))?.[0];
  const known = [browser, system].filter((part) => part !== undefined);
  return known.length > 0 ? known.join(", ") : agent.slice(0, 80);
}
