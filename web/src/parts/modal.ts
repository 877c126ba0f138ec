// Opens a dialog so that it is heard as well as seen.

/** How long a screen reader may take to see that the rest of the page is out of reach. */
const NOTICED_MS = 150;

/**
 * The focus ends at the line that is asked for, else at the dialog itself, whose name and words are read then. It goes there
 * in two steps, because after the first Orca says nothing: what had the focus is out of its reach once the dialog is open,
 * and where the focus is next it takes without a word.
 */
export function showModal(dialog: HTMLDialogElement | undefined): void {
  if (!dialog) return;
  dialog.showModal();
  const line = dialog.querySelector<HTMLElement>('input:not([type="checkbox"])');
  if (line) dialog.focus();
  const before = document.activeElement;
  setTimeout(() => {
    if (document.activeElement === before) (line ?? dialog).focus();
  }, NOTICED_MS);
}
