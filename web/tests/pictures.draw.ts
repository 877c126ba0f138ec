// Draws the pictures of the README: `cargo xtask pictures`. The events are made up; the host, the broker and the plugins
// are real.
import { statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from './support/fixtures';

const folder = fileURLToPath(new URL('../../docs/pictures/', import.meta.url));
const BYTES_MAX = 150_000;

test.use({ viewport: { width: 1160, height: 700 } });

const PICTURES: { name: string; path: string; dark?: boolean; ready: string; click?: string }[] = [
  { name: 'overview', path: '/', ready: 'All is well' },
  {
    name: 'table',
    path: '/tables/obs_events?filter=kind=package_upgrade&from=now-24h',
    ready: 'package_upgrade',
    click: 'tbody tr:nth-child(4) a',
  },
  { name: 'timeline', path: '/timeline?column=pc_id&entity=atlas', ready: 'execution_results / backup', dark: true },
  { name: 'charts', path: '/tables/host_perf/charts?from=now-2h', ready: 'cpu_pct' },
  { name: 'dead-letters', path: '/dead-letters', ready: 'malformed', dark: true, click: '.reason > button' },
];

for (const picture of PICTURES) {
  test(`picture of ${picture.name}`, async ({ page, host, operator }) => {
    await page.emulateMedia({ colorScheme: picture.dark ? 'dark' : 'light', reducedMotion: 'reduce' });
    await operator(page, host);
    await page.goto(`${host.address}${picture.path}`);
    await expect(page.getByText(picture.ready).first()).toBeVisible();
    if (picture.name === 'charts') await expect(page.locator('.u-over').first()).toBeVisible();
    if (picture.name === 'overview')
      await expect(page.locator('svg[role=img]').first()).toBeVisible({ timeout: 45_000 });
    if (picture.click) {
      await page.locator(picture.click).first().click();
      await expect(page.getByRole('group', { name: 'How the payload is shown' }).first()).toBeVisible();
    }
    const path = `${folder}${picture.name}.png`;
    await page.screenshot({ path, animations: 'disabled' });
    expect(statSync(path).size).toBeLessThan(BYTES_MAX);
  });
}
