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
      onOpenChange={(restarting) => {
        notebook.state.setState({ restarting });
        const { selected } = notebook.state.getState();
        // The dialog has no button that opened it, to which the focus could go back.
        if (!restarting && selected) setTimeout(() => notebook.select(selected), 50);
      }}
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
