// Measures the frame rate of a scrolling table with many rows: `cargo xtask frames`. It prints results without asserting
// them, because a slow machine is not a defect.
import { cpus, loadavg } from 'node:os';
import type { Locator, Page } from '@playwright/test';
import { observations } from './support/events';
import { expect, test } from './support/fixtures';
import { Host } from './support/host';

const ROWS = Number(process.env.LANTERN_ROWS ?? 1_000_000);
const SECONDS = Number(process.env.LANTERN_SECONDS ?? 20);
/** Messages published at once. The broker drops messages that arrive faster than it writes. */
const CHUNK = 5_000;
/** At 60 frames per second, a frame has 16.7 ms. */
const LATE_MS = 20;

interface Frames {
  times: number[];
  passed: number;
  /** CPU time of the page's main thread in milliseconds, independent of other load. */
  computed: number;
}

/** Fills a table by publishing messages. */
async function fill(host: Host): Promise<void> {
  const end = Date.now();
  const hours = 24 * 30;
  for (let done = 0; done < ROWS; done += CHUNK) {
    const count = Math.min(CHUNK, ROWS - done);
    const at = end - hours * 3_600_000 * (1 - (done + count) / ROWS);
    await host.publish(observations(count, at, (hours * count) / ROWS, `${done}-`));
    await host.handled('obs-events', done + count - CHUNK);
  }
  await host.handled('obs-events', ROWS);
}

/** Records the time of each frame. Each call of the returned function returns the frames since the previous call. */
async function recorder(page: Page, box: Locator): Promise<() => Promise<Frames>> {
  const devtools = await page.context().newCDPSession(page);
  await devtools.send('Performance.enable', { timeDomain: 'threadTicks' });
  await page.evaluate(() => {
    const times: number[] = [];
    const record = (time: number) => {
      times.push(time);
      requestAnimationFrame(record);
    };
    requestAnimationFrame(record);
    Object.assign(window, { times });
  });
  let [lastTop, lastComputed] = [0, 0];
  return async () => {
    const times = await page.evaluate(() => (window as never as { times: number[] }).times.splice(0));
    const top = await box.evaluate((element) => element.scrollTop);
    const { metrics } = await devtools.send('Performance.getMetrics');
    const computed = 1_000 * (metrics.find((one) => one.name === 'TaskDuration')?.value ?? 0);
    const frames = { times, passed: Math.round((top - lastTop) / 31), computed: computed - lastComputed };
    [lastTop, lastComputed] = [top, computed];
    return frames;
  };
}

function print(name: string, { times, passed, computed }: Frames): void {
  const deltas = times
    .slice(1)
    .map((time, index) => time - (times[index] ?? time))
    .sort((a, b) => a - b);
  const at = (share: number) =>
    (deltas[Math.min(deltas.length - 1, Math.floor(share * deltas.length))] ?? 0).toFixed(1);
  const seconds = ((times.at(-1) ?? 0) - (times[0] ?? 0)) / 1_000;
  const late = deltas.filter((delta) => delta > LATE_MS).length;
  console.log(
    `  ${name.padEnd(34)} ${(deltas.length / seconds).toFixed(1)} frames/s   median ${at(0.5)} ms   p95 ${at(0.95)} ms   ` +
      `worst ${at(1)} ms   ${late} of ${deltas.length} over ${LATE_MS} ms   ` +
      `${(computed / deltas.length).toFixed(1)} ms CPU per frame   ${passed} rows scrolled`,
  );
}

test('frames', async ({ page }) => {
  test.setTimeout(0);
  const host = await Host.start({ plugins: ['obs-events'] });
  try {
    const began = Date.now();
    await fill(host);
    const load = loadavg()[0]?.toFixed(1);
    console.log(
      `scrolling: ${ROWS} rows (read from the stream in ${Math.round((Date.now() - began) / 1_000)} s), ` +
        `${cpus().length} processors with a load of ${load}, no graphics card`,
    );
    await page.goto(`${host.address}/tables/obs_events`);
    const box = page.getByRole('region', { name: 'Rows of obs_events' });
    await expect(box.locator('tr[data-index]').first()).toBeVisible();
    await page.waitForTimeout(2_000);
    const frames = await recorder(page, box);

    await frames();
    await page.waitForTimeout(3_000);
    print('at rest', await frames());

    await box.hover();
    for (const [name, pixels] of [
      ['wheel, 120 pixels per step', 120],
      ['fast wheel, 1200 pixels per step', 1_200],
    ] as const) {
      await frames();
      const until = Date.now() + SECONDS * 1_000;
      while (Date.now() < until) await page.mouse.wheel(0, pixels);
      print(name, await frames());
    }

    // Every frame shows different loaded rows.
    await frames();
    await box.evaluate((element, seconds) => {
      const until = performance.now() + seconds * 1_000;
      const height = element.scrollHeight;
      return new Promise<void>((resolve) => {
        const jump = (now: number) => {
          if (now > until) return resolve();
          element.scrollTop = Math.random() * height;
          requestAnimationFrame(jump);
        };
        requestAnimationFrame(jump);
      });
    }, SECONDS);
    print('scroll bar, random position per frame', await frames());
  } finally {
    await host.stop();
  }
});
