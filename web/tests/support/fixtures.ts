// Fixtures of the browser tests: one host with events for read-only tests, a signed-in page, and accessibility checks.
import { AxeBuilder } from '@axe-core/playwright';
import { test as base, expect, type Page } from '@playwright/test';
import { audits, executions, observations, performance } from './events';
import { Host } from './host';

export const OBSERVATIONS = 4_000;

interface Shared {
  /** A host with events of the last day. Tests that make changes start their own host. */
  host: Host;
}

interface Each {
  /** A page without a token: a viewer, on the loopback interface. */
  viewer: Page;
  /** Sets the operator's token before the page is opened. */
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
    const errors: string[] = [];
    page.on('pageerror', (error) => errors.push(String(error)));
    page.on('console', (message) => {
      // The browser logs responses with 4xx and 5xx; those are not errors of the page.
      if (message.type() === 'error' && !message.text().startsWith('Failed to load resource'))
        errors.push(message.text());
    });
    await use(page);
    expect(errors, 'errors in the console of the page').toEqual([]);
  },
});

/** Stores the token before each page of this tab loads. */
export async function signedIn(page: Page, token: string): Promise<void> {
  await page.addInitScript((text) => sessionStorage.setItem('lantern.token', text), token);
}

/** Asserts that the page has no automatically detectable violation of WCAG 2.2 AA. */
export async function accessible(page: Page, where: string): Promise<void> {
  const found = await new AxeBuilder({ page })
    .withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'])
    .analyze();
  const violations = found.violations.map(
    (violation) => `${violation.id}: ${violation.help}: ${violation.nodes.map((node) => node.target).join(' | ')}`,
  );
  expect(violations, where).toEqual([]);
}

export { expect };
