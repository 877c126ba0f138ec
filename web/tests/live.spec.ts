// Live rows, charts, exports and SQL.
import { readFileSync } from 'node:fs';
import { expect, test } from './support/fixtures';
import { Host } from './support/host';

const event = (n: number) => ({
  subject: 'obs.live',
  payload: {
    pc_id: 'live',
    at: new Date().toISOString(),
    kind: 'live',
    source: 'test',
    event_record_id: `live-${n}`,
    payload: { n },
  },
});

test('live rows appear; while paused they are counted', async ({ page }) => {
  const host = await Host.start({ plugins: ['obs-events'] });
  try {
    await page.goto(`${host.address}/tables/obs_events/live?filter=pc_id=live`);
    await expect(page.getByText('Connected', { exact: true })).toBeVisible();
    await host.publish([event(1)]);
    const rows = page.getByRole('region', { name: 'Newest rows of obs_events' });
    await expect(rows).toContainText('live-1');
    await page.getByRole('button', { name: 'Pause' }).click();
    await host.publish([event(2), event(3)]);
    await expect(page.getByRole('button', { name: '2 new' })).toBeVisible();
    await expect(rows).not.toContainText('live-2');
    await page.getByRole('button', { name: '2 new' }).click();
    await expect(rows.getByRole('row').nth(1)).toContainText('live-3');
    await expect(rows.getByRole('row').nth(2)).toContainText('live-2');
  } finally {
    await host.stop();
  }
});

test('charts are drawn, zoomed together, and available as tables', async ({ page, host }) => {
  await page.goto(`${host.address}/tables/host_perf/charts`);
  const plots = page.locator('.u-over');
  await expect(plots.first()).toBeVisible();
  expect(await plots.count()).toBeGreaterThan(3);
  await page.getByText('cpu_pct as a table').click();
  await expect(page.getByRole('region', { name: 'cpu_pct as a table' }).getByRole('cell').first()).toContainText('%');
  const box = await plots.first().boundingBox();
  if (!box) throw new Error('the chart is not drawn');
  await page.mouse.move(box.x + box.width * 0.3, box.y + 40);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.6, box.y + 40, { steps: 4 });
  await page.mouse.up();
  await expect(page).toHaveURL(/from=.*to=/);
  await expect(page.getByRole('link', { name: 'Reset zoom' })).toBeVisible();
});

test('the selected rows are exported as CSV', async ({ page, host, operator }) => {
  for (const signed of [false, true]) {
    if (signed) await operator(page, host);
    await page.goto(`${host.address}/tables/obs_events?filter=kind=boot`);
    await page.getByRole('button', { name: 'Export' }).click();
    const download = page.waitForEvent('download');
    await page.getByRole('link', { name: 'CSV' }).click();
    const text = readFileSync(await (await download).path(), 'utf8');
    const lines = text.trim().split(/\r?\n/);
    expect(lines[0]).toContain('pc_id');
    expect(lines.length).toBeGreaterThan(5);
    expect(lines.slice(1).every((line) => line.includes('boot'))).toBe(true);
  }
});

test('the selected rows are exported as JSON lines with exact numbers', async ({ page }) => {
  const host = await Host.start({ plugins: ['obs-events'] });
  try {
    const big = { ...event(7).payload, event_record_id: 'export-7', payload: { n: 1 } };
    const text = JSON.stringify(big).replace('"n":1', '"n":9223372036854775807');
    await host.publish([{ subject: 'obs.live', payload: text }]);
    await page.goto(`${host.address}/tables/obs_events?filter=event_record_id=export-7`);
    await expect(page.getByRole('table', { name: 'Rows of obs_events' })).toContainText('export-7');
    await page.getByRole('button', { name: 'Export', exact: true }).click();
    const download = page.waitForEvent('download');
    await page.getByRole('link', { name: 'JSON lines' }).click();
    expect((await download).suggestedFilename()).toBe('obs_events.jsonl');
    const lines = readFileSync(await (await download).path(), 'utf8').split('\n');
    expect(lines).toHaveLength(2);
    expect(lines[1]).toBe('');
    expect(lines[0]).toContain('9223372036854775807');
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ pc_id: 'live', kind: 'live', event_record_id: 'export-7' });
  } finally {
    await host.stop();
  }
});

test('an operator runs an SQL query', async ({ page, host, operator }) => {
  await operator(page, host);
  await page.goto(`${host.address}/sql`);
  await page
    .getByRole('textbox', { name: 'SQL query' })
    .fill("select kind, count(*) as n from obs_events where kind = 'boot' group by kind");
  await page.keyboard.press('Control+Enter');
  await expect(page.getByRole('region', { name: 'Result' })).toContainText('boot');
  await page.getByRole('textbox', { name: 'SQL query' }).fill('delete from obs_events');
  await page.getByRole('button', { name: 'Run' }).click();
  await expect(page.getByRole('alert')).toBeVisible();
});
