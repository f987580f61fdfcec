import { render, screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { navigate } from "wouter/use-browser-location";
import { setLanguage } from "@/lib/i18n";
import { App } from "./App";
import { useLayout } from "./layout";

const json = (value: unknown, status = 200) => new Response(JSON.stringify(value), { status });
let token = "";
const logins: unknown[] = [];

beforeEach(() => {
  setLanguage("en");
  navigate("/");
  token = "";
  logins.length = 0;
  useLayout.setState({ dialog: "none", sidebar: true, panel: false });
  vi.stubGlobal("fetch", async (url: string, init: RequestInit = {}) => {
    if (url === "/v1/login") {
      const body = JSON.parse(String(init.body)) as { token: string };
      logins.push(body.token);
      if (body.token !== "right-token") return json({ code: "token-wrong", detail: "No.", hint: "Look." }, 401);
      token = body.token;
      return new Response(null, { status: 204 });
    }
    if (token === "") return json({ code: "unauthenticated", detail: "The token is missing." }, 401);
    if (url === "/v1/models") return json({ models: [], hint: "Add one." });
    if (url.startsWith("/v1/sessions?")) return json({ sessions: [] });
    return json({ code: "session-not-found", detail: "There is no such session." }, 404);
  });
});
afterEach(() => vi.unstubAllGlobals());

describe("the page", () => {
  it("asks for the token when the server does, takes the whole address too, and goes on", async () => {
    const user = userEvent.setup();
    render(<App />);
    const field = await screen.findByLabelText("Token");
    expect(field).toHaveFocus();
    await user.type(field, "wrong{Enter}");
    expect(await screen.findByText("That is not the token. Copy it again.")).toBeInTheDocument();
    await user.clear(field);
    await user.type(field, "http://127.0.0.1:8000/?token=right-token{Enter}");
    expect(await screen.findByRole("navigation", { name: "Sessions" })).toBeInTheDocument();
    expect(logins).toEqual(["wrong", "right-token"]);
  });

  it("says that a session is not here, and offers a new one", async () => {
    token = "right-token";
    navigate("/s/ses_gone");
    const user = userEvent.setup();
    render(<App />);
    expect(await screen.findByText("This session is not here")).toBeInTheDocument();
    await user.click(screen.getAllByRole("button", { name: "New session" }).at(-1) as HTMLElement);
    expect(location.pathname).toBe("/");
    expect(await screen.findByRole("heading", { level: 1, name: "Python, ready when you are" })).toBeInTheDocument();
    expect(screen.getByRole("button", { name: /Fit a curve/ })).toBeEnabled();
  });

  it("answers its keys, but not while somebody types", async () => {
    token = "right-token";
    const user = userEvent.setup();
    render(<App />);
    const search = await screen.findByRole("searchbox");
    await user.click(search);
    await user.keyboard("?");
    expect(search).toHaveValue("?");
    expect(useLayout.getState().dialog).toBe("none");
    (document.activeElement as HTMLElement).blur();
    await user.keyboard("?");
    expect(await screen.findByRole("dialog", { name: "Keyboard shortcuts" })).toBeInTheDocument();
    await user.keyboard("{Escape}");
    await waitFor(() => expect(useLayout.getState().dialog).toBe("none"));
    await user.keyboard("{Control>}k{/Control}");
    expect(await screen.findByPlaceholderText("Search commands and sessions")).toHaveFocus();
    await user.keyboard("dark{Enter}");
    await waitFor(() => expect(document.documentElement.dataset.theme).toBe("dark"));
  });
});
