// Prints the summary line that `cargo xtask test` adds up, in the format of Rust's test programs.
import type { FullResult, Reporter, TestCase, TestResult } from '@playwright/test/reporter';

class TallyReporter implements Reporter {
  #tests = new Map<string, { passed: boolean; skipped: boolean }>();

  onTestEnd(test: TestCase, result: TestResult): void {
    this.#tests.set(test.id, { passed: result.status === 'passed', skipped: result.status === 'skipped' });
  }

  onEnd(_result: FullResult): void {
    const all = [...this.#tests.values()];
    const ignored = all.filter((test) => test.skipped).length;
    const passed = all.filter((test) => test.passed).length;
    const failed = all.length - passed - ignored;
    console.log(`test result: ${failed ? 'FAILED' : 'ok'}. ${passed} passed; ${failed} failed; ${ignored} ignored`);
  }
}

export default TallyReporter;
