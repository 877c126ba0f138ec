// Prints the same summary line for the unit tests.
import type { Reporter, TestModule } from 'vitest/node';

export default class UnitReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const states = modules.flatMap((module) => [...module.children.allTests()].map((test) => test.result().state));
    const count = (state: string) => states.filter((one) => one === state).length;
    const broken = modules.filter((module) => module.state() === 'failed' && module.errors().length > 0).length;
    const failed = count('failed') + broken;
    console.log(
      `test result: ${failed ? 'FAILED' : 'ok'}. ${count('passed')} passed; ${failed} failed; ${count('skipped')} ignored`,
    );
  }
}
