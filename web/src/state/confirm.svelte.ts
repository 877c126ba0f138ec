// The one question before an act: in words, what will happen. One act asks at a time.
export interface Question {
  title: string;
  /** What will happen, a sentence each. */
  words: string[];
  /** What the button says. */
  verb: string;
  danger?: boolean;
  /** A line that is asked for with it, such as the reason of a pause. */
  input?: { label: string; placeholder?: string; value?: string; required?: boolean };
  /** The act. What it says at the end is shown; an error keeps the question open. */
  act: (input: string) => Promise<string | undefined>;
}

class Asking {
  question = $state.raw<Question | undefined>();
  /** How the last act ended, told politely. */
  said = $state<string | undefined>();

  ask(question: Question): void {
    this.said = undefined;
    this.question = question;
  }

  end(said?: string): void {
    this.question = undefined;
    this.said = said;
  }
}

export const asking = new Asking();
