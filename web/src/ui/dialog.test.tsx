import { render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { useState } from "react";
import { expect, it } from "vitest";
import { Dialog } from "./dialog";

function Page() {
  const [open, setOpen] = useState(false);
  return (
    <>
      <textarea aria-label="Message" onKeyDown={(event) => event.key === "F1" && setOpen(true)} />
      <Dialog open={open} onOpenChange={setOpen} title="Help">
        <button type="button">Inside</button>
      </Dialog>
    </>
  );
}

it("gives the focus back to what had it, without a trigger of its own", async () => {
  const user = userEvent.setup();
  render(<Page />);
  const area = screen.getByRole("textbox", { name: "Message" });
  for (let i = 0; i < 2; i++) {
    await user.click(area);
    await user.keyboard("{F1}");
    expect(screen.getByRole("dialog", { name: "Help" })).toContainElement(document.activeElement as HTMLElement);
    await user.keyboard("{Escape}");
    expect(screen.queryByRole("dialog")).toBeNull();
    expect(area).toHaveFocus();
  }
});
