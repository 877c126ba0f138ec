// The main function of each page, on a host with events.
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { accessible, expect, OBSERVATIONS, test } from './support/fixtures';
import { Host } from './support/host';
import { syslog } from './support/places';

test('the overview shows the health and the sources', async ({ viewer }) => {
  await expect(viewer.getByText(/^Healthy: 6 sources running/)).toBeVisible();
  await expect(viewer.getByRole('link', { name: '2 open dead letters' })).toBeVisible();
  const row = viewer.getByRole('row', { name: /obs-events/ });
  await expect(row.getByText('running')).toBeVisible();
  await expect(row.getByText('0.1.0')).toBeVisible();
  await viewer.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'obs_events' }).click();
  await expect(viewer.getByRole('heading', { name: 'obs_events' })).toBeVisible();
});

test('a table is filtered by value, search and time, and the address keeps the state', async ({ page, host }) => {
  await page.goto(`${host.address}/tables/obs_events`);
  const rows = page.getByRole('region', { name: 'Rows of obs_events' });
  await expect(rows.getByRole('row')).not.toHaveCount(0);
  await expect(page.getByText('4 000 rows', { exact: false }).first()).toBeVisible();

  await page.getByRole('group', { name: 'kind' }).getByText('package_upgrade').click();
  await expect(page).toHaveURL(/filter=kind=package_upgrade/);
  await expect(page.getByRole('list', { name: 'Filters' }).getByText('package_upgrade')).toBeVisible();

  const search = page.getByRole('combobox', { name: /Search/ });
  await search.fill('pc_id:atl');
  await page.getByRole('option', { name: /pc_id:atlas/ }).click();
  await expect(page).toHaveURL(/filter=pc_id=atlas/);
  await search.fill('openssl');
  await search.press('Enter');
  await expect(page).toHaveURL(/search=openssl/);
  await search.fill('-"no such phrase" openss*');
  await search.press('Enter');
  await expect(page).toHaveURL(/search=-%22no|search=-"no/);
  const cells = rows.getByRole('row').filter({ hasText: 'package_upgrade' });
  await expect(cells.first()).toContainText('openssl');
  await expect(cells.first()).toContainText('atlas');

  // Reload and back: the address holds the whole state.
  const address = page.url();
  await page.reload();
  await expect(cells.first()).toContainText('openssl');
  expect(page.url()).toBe(address);
  await page.getByRole('button', { name: 'Clear all' }).click();
  await expect(page).not.toHaveURL(/filter/);
  await page.goBack();
  await expect(page.getByRole('list', { name: 'Filters' }).getByText('package_upgrade')).toBeVisible();

  await page.goto(`${host.address}/tables/obs_events`);
  await page.getByRole('button', { name: 'All time' }).click();
  await page.getByRole('button', { name: 'Last 6 hours' }).click();
  await expect(page).toHaveURL(/from=now-6h/);
  await expect(page.getByRole('img', { name: /rows from/ })).toBeVisible();
});

test('dragging over the histogram selects a time range', async ({ page, host }) => {
  await page.goto(`${host.address}/tables/obs_events`);
  const bars = page.getByRole('img', { name: /rows from/ });
  const box = await bars.boundingBox();
  if (!box) throw new Error('the histogram is not drawn');
  await page.mouse.move(box.x + box.width * 0.3, box.y + 20);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.5, box.y + 20, { steps: 4 });
  await page.mouse.up();
  await expect(page).toHaveURL(/from=\d{4}-.*to=\d{4}-/);
});

test('scrolling loads rows, and only visible rows are rendered', async ({ page, host }) => {
  await page.goto(`${host.address}/tables/obs_events`);
  const box = page.getByRole('region', { name: 'Rows of obs_events' });
  await expect(page.getByRole('table', { name: 'Rows of obs_events' })).toHaveAttribute(
    'aria-rowcount',
    `${OBSERVATIONS + 1}`,
  );
  const last = box.locator('tr[data-index]').last();
  await expect(last).toBeAttached();
  for (const index of [150, 350, 550]) {
    await expect
      .poll(async () => {
        await box.evaluate((element) => element.scrollTo({ top: element.scrollHeight }));
        return Number(await last.getAttribute('data-index'));
      })
      .toBeGreaterThan(index);
  }
  expect(await box.locator('tr[data-index]').count()).toBeLessThan(80);
});

test('columns are hidden and sorted', async ({ page, host }) => {
  await page.goto(`${host.address}/tables/obs_events`);
  const table = page.getByRole('table', { name: 'Rows of obs_events' });
  await page.getByRole('button', { name: 'Columns' }).click();
  await page.getByRole('checkbox', { name: /payload/ }).uncheck();
  await expect(table.getByRole('columnheader', { name: 'payload' })).toHaveCount(0);
  await page.keyboard.press('Escape');
  await table.getByRole('button', { name: 'pc_id' }).click();
  await expect(page).toHaveURL(/sort=-pc_id/);
  await expect(table.getByRole('columnheader', { name: 'pc_id' })).toHaveAttribute('aria-sort', 'descending');
  await expect(table.getByRole('row').nth(1)).toContainText('fornax');
});

test('a row shows its message, version and neighbours, by keyboard alone', async ({ page, host }) => {
  await page.goto(`${host.address}/tables/obs_events?filter=kind=boot`);
  const table = page.getByRole('table', { name: 'Rows of obs_events' });
  await expect(table.getByRole('row').nth(1)).toContainText('boot');
  await page.keyboard.press('j');
  await expect(table.getByRole('link').first()).toBeFocused();
  await page.keyboard.press('Enter');
  const drawer = page.getByRole('dialog', { name: /Row \d+:\d+:\d+ of obs_events/ });
  await expect(drawer.getByRole('heading', { name: /Row \d+:\d+:\d+/ })).toBeFocused();
  await expect(drawer.getByText('kernel').first()).toBeVisible();
  await expect(drawer.getByText(/^Message/)).toContainText('OBS_EVENTS');
  await expect(drawer.getByRole('link', { name: 'obs-events 0.1.0' })).toBeVisible();
  await drawer.getByRole('button', { name: 'Hex' }).click();
  await expect(drawer.getByText('00000000  7b 22')).toBeVisible();
  await accessible(page, 'a row');
  const address = page.url();
  await page.keyboard.press('j');
  await expect(page).not.toHaveURL(address);
  await page.keyboard.press('Escape');
  await expect(drawer).toHaveCount(0);
  await page.goto(address);
  await expect(drawer.getByText('kernel').first()).toBeVisible();
});

test('the timeline combines starts and ends into spans', async ({ page, host }) => {
  await page.goto(`${host.address}/timeline`);
  await page.getByRole('list', { name: 'Most frequent values of pc_id' }).getByRole('link', { name: 'atlas' }).click();
  await expect(page.getByText('execution_results / backup')).toBeVisible();
  await expect(page.locator('svg a rect').first()).toBeVisible();
  await expect(page.locator('svg a.open rect').first()).toBeVisible();
  await page.getByText('As a list').click();
  await expect(page.getByText(/, for \d+ min/).first()).toBeVisible();
  await accessible(page, 'timeline');
});

test('dead letters show the reason and the payload', async ({ page, host }) => {
  await page.goto(`${host.address}/dead-letters`);
  const group = page.getByRole('region', { name: 'obs-events/obs: malformed' });
  await group.getByRole('button', { name: /expected ident/ }).click();
  await expect(group.getByText('X-Sender')).toBeVisible();
  await expect(group.getByText('no JSON', { exact: true })).toBeVisible();
  // A viewer has no controls that make changes.
  await expect(page.getByRole('button', { name: 'Retry' })).toHaveCount(0);
  await expect(page.getByRole('button', { name: /Discard…/ })).toHaveCount(0);
});

test('views are saved in the browser', async ({ page, host }) => {
  await page.goto(`${host.address}/tables/obs_events?filter=kind=boot`);
  await page.getByRole('button', { name: 'Views' }).click();
  await page.getByRole('textbox', { name: 'Name of the view' }).fill('Boots');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.goto(`${host.address}/tables/obs_events`);
  await page.getByRole('button', { name: 'Views' }).click();
  await page.getByRole('link', { name: 'Boots' }).click();
  await expect(page).toHaveURL(/filter=kind=boot/);
});

test('a plugin provides views of its tables', async ({ page }) => {
  const host = await Host.start({ plugins: [] });
  try {
    copyFileSync(syslog(), join(host.pluginFolder, 'syslog.wasm'));
    const running = { plugin: 'syslog', state: 'running' };
    await expect.poll(() => host.api<object[]>('/api/v1/projections')).toMatchObject([running]);
    const line = (priority: number, text: string) => ({
      subject: 'syslog.x',
      payload: `<${priority}>1 ${new Date().toISOString()} web-1 nginx 7 - - ${text}`,
    });
    await host.publish([line(27, 'disk is full'), line(30, 'all is quiet')]);
    await host.rows('syslog_lines', 2);
    await page.goto(`${host.address}/tables/syslog_lines`);
    const table = page.getByRole('table', { name: 'Rows of syslog_lines' });
    await expect(table).toContainText('all is quiet');
    await page.getByRole('button', { name: 'Views' }).click();
    await page.getByRole('link', { name: 'Errors' }).click();
    await expect(page).toHaveURL(/filter=severity%3C4/);
    await expect(page.getByRole('list', { name: 'Filters' })).toContainText('severity');
    await expect(table).toContainText('disk is full');
    await expect(table).not.toContainText('all is quiet');
    // Views of a plugin cannot be deleted in the dashboard.
    await page.getByRole('button', { name: 'Views' }).click();
    await expect(page.getByRole('button', { name: /Delete the view/ })).toHaveCount(0);
  } finally {
    await host.stop();
  }
});

test('keyboard shortcuts navigate, and can be disabled', async ({ viewer }) => {
  await expect(viewer.getByRole('heading', { name: 'Sources' })).toBeVisible();
  await viewer.keyboard.press('g');
  await viewer.keyboard.press('a');
  await expect(viewer.getByRole('heading', { name: 'Audit' })).toBeVisible();
  await viewer.keyboard.press('?');
  const help = viewer.getByRole('dialog', { name: 'Keyboard shortcuts' });
  await expect(help).toBeVisible();
  await help.getByRole('checkbox').uncheck();
  await help.getByRole('button', { name: 'Close' }).click();
  await viewer.keyboard.press('?');
  await expect(help).not.toBeVisible();
});

test('an unknown address shows an error page', async ({ page, host }) => {
  const response = await page.goto(`${host.address}/nothing/here`);
  expect(response?.status()).toBe(404);
  await expect(page.getByRole('heading', { name: 'Page not found' })).toBeVisible();
  await page.goto(`${host.address}/tables/obs_events/charts`);
  await expect(page.getByText('No charts:')).toContainText('declares no measure');
  await page.goto(`${host.address}/tables/nothing`);
  await expect(page.getByRole('alert')).toContainText('there is no table nothing');
});
