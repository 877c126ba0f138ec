// What the tests in a browser share: one host with events for all that only look, a page that is signed in, and a look
// for what a screen reader would stumble over.
import { AxeBuilder } from '@axe-core/playwright';
import { test as base, expect, type Page } from '@playwright/test';
import { audits, executions, observations, performance } from './events';
import { Host } from './host';

export const OBSERVATIONS = 4_000;

interface Shared {
  /** A host with events of the last day. Tests that change something start their own. */
  host: Host;
}

interface Each {
  /** The page without a token: a viewer, on the loopback interface. */
  viewer: Page;
  /** Gives the page the operator's token before it is opened. */
  operator: (page: Page, host: Host) => Promise<void>;
}

export const test = base.extend<Each, Shared>({
  host: [
    // biome-ignore lint/correctness/noEmptyPattern: Playwright reads the pattern
    async ({}, use) => {
      const host = await Host.start({ env: { LANTERN__HTTP__SQL: 'true' } });
      const now = Date.now();
      await host.publish([
        ...observations(OBSERVATIONS, now),
        ...executions(120, now),
        ...audits(30, now),
        ...performance(120, now),
        { subject: 'obs.atlas', payload: 'no JSON', headers: { 'X-Sender': 'agent 7' } },
        { subject: 'obs.atlas', payload: { pc_id: 'atlas' } },
      ]);
      await host.rows('obs_events', OBSERVATIONS);
      await host.rows('execution_results', 120);
      await use(host);
      await host.stop();
    },
    { scope: 'worker', timeout: 90_000 },
  ],
  viewer: async ({ page, host }, use) => {
    await page.goto(host.address);
    await use(page);
  },
  // biome-ignore lint/correctness/noEmptyPattern: Playwright reads the pattern
  operator: async ({}, use) => {
    await use((page, host) => signedIn(page, host.token));
  },
  page: async ({ page }, use) => {
    const wrong: string[] = [];
    page.on('pageerror', (error) => wrong.push(String(error)));
    page.on('console', (message) => {
      // What the browser says of an answer with 4xx or 5xx is no fault of the page.
      if (message.type() === 'error' && !message.text().startsWith('Failed to load resource'))
        wrong.push(message.text());
    });
    await use(page);
    expect(wrong, 'the page has said errors').toEqual([]);
  },
});

/** Has every page of this tab begin with the token. */
export async function signedIn(page: Page, token: string): Promise<void> {
  await page.addInitScript((text) => sessionStorage.setItem('lantern.token', text), token);
}

/** Nothing that breaks WCAG 2.2 AA as far as a program can tell. */
export async function accessible(page: Page, where: string): Promise<void> {
  const found = await new AxeBuilder({ page })
    .withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'])
    .analyze();
  const words = found.violations.map(
    (violation) => `${violation.id}: ${violation.help}: ${violation.nodes.map((node) => node.target).join(' | ')}`,
  );
  expect(words, where).toEqual([]);
}

export { expect };
