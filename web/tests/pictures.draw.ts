// Takes the screenshots of the README: `cargo xtask pictures`. The events are generated; host, broker and plugins are real.
import { statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { observations, performance } from './support/events';
import { expect, test } from './support/fixtures';

const folder = fileURLToPath(new URL('../../docs/pictures/', import.meta.url));
const BYTES_MAX = 150_000;

test.use({ viewport: { width: 1160, height: 700 } });

const PICTURES: { name: string; path: string; dark?: boolean; ready: string; click?: string }[] = [
  {
    name: 'table',
    path: '/tables/obs_events?filter=kind=package_upgrade&from=now-24h',
    ready: 'package_upgrade',
    click: 'tbody tr:nth-child(4) a',
  },
  { name: 'timeline', path: '/timeline?column=pc_id&entity=atlas', ready: 'execution_results / backup', dark: true },
  { name: 'charts', path: '/tables/host_perf/charts?from=now-2h', ready: 'cpu_pct' },
  // After the others, so that the overview has a history.
  { name: 'overview', path: '/', ready: 'Healthy:' },
  { name: 'dead-letters', path: '/dead-letters', ready: 'malformed', dark: true, click: '.reason > button' },
];

for (const picture of PICTURES) {
  test(`picture of ${picture.name}`, async ({ page, host, operator }) => {
    await page.emulateMedia({ colorScheme: picture.dark ? 'dark' : 'light', reducedMotion: 'reduce' });
    await operator(page, host);
    await page.goto(`${host.address}${picture.path}`);
    await expect(page.getByText(picture.ready).first()).toBeVisible();
    if (picture.name === 'charts') await expect(page.locator('.u-over').first()).toBeVisible();
    if (picture.name === 'overview') {
      test.setTimeout(180_000);
      let number = 0;
      const past = async () => {
        number += 1;
        const at = Date.now();
        await host.publish([
          ...observations(40 * (1 + (number % 7)), at, 0.01, `now-${number}-`),
          ...performance(3, at),
        ]);
        const points = await page
          .getByRole('row', { name: /obs-events/ })
          .locator('polyline')
          .getAttribute('points');
        return (points ?? '').split(' ').length;
      };
      await expect.poll(past, { timeout: 150_000, intervals: [1_500] }).toBeGreaterThan(8);
    }
    if (picture.click) {
      await page.locator(picture.click).first().click();
      await expect(page.getByRole('group', { name: 'Payload format' }).first()).toBeVisible();
    }
    // The viewport is as high as the content, so that nothing is cut off.
    const height = await page.evaluate(() => document.documentElement.scrollHeight);
    if (picture.name === 'overview') await page.setViewportSize({ width: 1160, height: Math.min(height, 900) });
    const path = `${folder}${picture.name}.png`;
    await page.screenshot({ path, animations: 'disabled' });
    expect(statSync(path).size).toBeLessThan(BYTES_MAX);
  });
}
