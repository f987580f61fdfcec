import { defineStrings } from "@/lib/i18n";

export const useStrings = defineStrings({
  en: { close: "Close", cancel: "Cancel", undo: "Undo", failed: "That did not work", resize: "Resize" },
  de: { close: "Schließen", cancel: "Abbrechen", undo: "Rückgängig", failed: "Das ging nicht", resize: "Größe ändern" },
});
