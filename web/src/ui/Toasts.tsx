import "sonner/dist/styles.css";
import { useEffect } from "react";
import { Toaster as Sonner } from "sonner";

/** Where toasts appear; ready is called once they can. */
export default function Toasts({ ready }: { ready: () => void }) {
  useEffect(ready, [ready]);
  return (
    <Sonner
      // Below the header: at the lower edge they would lie over the composer.
      position="top-center"
      offset={{ top: "3.5rem" }}
      mobileOffset={{ top: "3.5rem", left: "0.75rem", right: "0.75rem" }}
      style={{ fontFamily: "inherit" }}
      gap={8}
      toastOptions={{
        unstyled: true,
        classNames: {
          toast:
            "flex w-full items-start gap-2.5 rounded-lg border bg-raised px-3.5 py-2.5 text-ink text-sm shadow-pop [&_[data-icon]]:mt-0.5 [&_[data-icon]]:shrink-0",
          content: "min-w-0 flex-1 self-center",
          title: "font-medium",
          description: "mt-0.5 text-muted",
          actionButton: "shrink-0 self-center rounded-md px-2 py-1 font-medium text-accent hover:bg-hover",
          error: "[&_[data-icon]]:text-danger",
          warning: "[&_[data-icon]]:text-warning",
          success: "[&_[data-icon]]:text-success",
        },
      }}
    />
  );
}
