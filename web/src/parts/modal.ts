// Opens a dialog so that screen readers announce it.

/** Time for a screen reader to notice that the rest of the page is inert. */
const ANNOUNCE_DELAY_MS = 150;

/**
 * Moves the focus to the text field, or else to the dialog, whose name and content are announced then. The focus moves in
 * two steps, because Orca does not announce the first move: the previously focused element is inert once the dialog is open,
 * and Orca accepts the next focus silently.
 */
export function showModal(dialog: HTMLDialogElement | undefined): void {
  if (!dialog) return;
  dialog.showModal();
  const field = dialog.querySelector<HTMLElement>('input:not([type="checkbox"])');
  if (field) dialog.focus();
  const before = document.activeElement;
  setTimeout(() => {
    if (document.activeElement === before) (field ?? dialog).focus();
  }, ANNOUNCE_DELAY_MS);
}
