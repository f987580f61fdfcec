import { useActions } from "@/features/session";
import { ConfirmDialog, toast } from "@/ui";
import { useNotebook, useNotebookState } from "./controller";
import { useStrings } from "./strings";

/** Asks before Python is restarted: variables can't be brought back. */
export function RestartDialog() {
  const s = useStrings();
  const notebook = useNotebook();
  const actions = useActions();
  const open = useNotebookState((state) => state.restarting);
  return (
    <ConfirmDialog
      open={open}
      onOpenChange={(restarting) => notebook.state.setState({ restarting })}
      title={s.restartTitle}
      description={s.restartText}
      confirm={s.restart}
      danger
      onConfirm={async () => {
        if (await actions.restartKernel()) toast.success(s.restarted);
      }}
    />
  );
}
