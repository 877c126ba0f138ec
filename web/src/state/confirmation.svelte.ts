// The confirmation before a change: it describes the effect. One confirmation is open at a time.
export interface Confirmation {
  title: string;
  /** The effects, one sentence each. */
  effects: string[];
  /** Label of the confirm button. */
  confirmLabel: string;
  danger?: boolean;
  /** An additional text field, such as the reason of a pause. */
  input?: { label: string; placeholder?: string; value?: string; required?: boolean };
  /** Makes the change and returns a result message. An error keeps the confirmation open. */
  run: (input: string) => Promise<string | undefined>;
}

class ConfirmationState {
  current = $state.raw<Confirmation | undefined>();
  /** Result message of the last change, announced politely. */
  result = $state<string | undefined>();

  open(confirmation: Confirmation): void {
    this.result = undefined;
    this.current = confirmation;
  }

  close(result?: string): void {
    this.current = undefined;
    this.result = result;
  }
}

export const confirmation = new ConfirmationState();
