import { Component, type ErrorInfo, type ReactNode } from "react";
import { Button } from "@/ui";
import { useStrings } from "./strings";

interface State {
  error: Error | null;
}

/** What is shown instead of a white page when a component throws. */
export class ErrorBoundary extends Component<{ children: ReactNode }, State> {
  override state: State = { error: null };

  static getDerivedStateFromError(error: unknown): State {
    return { error: error instanceof Error ? error : new Error(String(error)) };
  }

  override componentDidCatch(error: unknown, info: ErrorInfo): void {
    console.error(error, info.componentStack);
  }

  override render(): ReactNode {
    const { error } = this.state;
    if (!error) return this.props.children;
    const s = useStrings.now();
    return (
      <div role="alert" className="mx-auto flex h-full max-w-144 flex-col justify-center gap-3 p-6">
        <h1 className="font-semibold text-lg">{s.crashed}</h1>
        <p className="text-muted">{s.crashedDetail}</p>
        <div>
          <Button variant="primary" onClick={() => location.reload()}>
            {s.reload}
          </Button>
        </div>
        <pre className="mt-2 max-h-64 overflow-auto rounded-md border bg-sunken p-3 text-xs">
          {error.stack ?? error.message}
        </pre>
      </div>
    );
  }
}
