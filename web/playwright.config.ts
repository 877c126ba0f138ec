// Browser tests with Debian's Chromium, configured to connect only to the host.
import { defineConfig } from '@playwright/test';

export const browser = {
  executablePath: process.env.LANTERN_CHROMIUM ?? '/usr/bin/chromium',
  args: [
    // A sandbox needs a user other than root.
    ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
};

export default defineConfig({
  testDir: 'tests',
  testMatch: '*.spec.ts',
  outputDir: '../target/browser',
  fullyParallel: false,
  workers: 2,
  timeout: 60_000,
  expect: { timeout: 15_000 },
  reporter: [['list'], ['./tests/support/tally-reporter.ts']],
  use: {
    launchOptions: browser,
    locale: 'en-GB',
    timezoneId: 'Europe/Berlin',
    screenshot: 'only-on-failure',
    trace: 'off',
  },
});
