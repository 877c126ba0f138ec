// Accessibility (automated WCAG rules in both themes, small and large viewports, screen reader announcements), hostile
// values, and permissions.
import { networkInterfaces } from 'node:os';
import { accessible, expect, signedIn, test } from './support/fixtures';
import { Host } from './support/host';

const PAGES = [
  '/',
  '/tables/obs_events',
  '/tables/obs_events?filter=kind=nothing',
  '/tables/obs_events/live',
  '/tables/host_perf/charts',
  '/timeline?entity=atlas&column=pc_id',
  '/dead-letters',
  '/gaps',
  '/plugins',
  '/plugins/obs-events',
  '/audit',
  '/sql?q=select+kind,+count(*)+from+obs_events+group+by+kind',
  '/sign-in',
];

for (const colorScheme of ['light', 'dark'] as const) {
  test(`no page violates an accessibility rule, ${colorScheme}`, async ({ page, host, operator }) => {
    test.setTimeout(120_000);
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    await operator(page, host);
    for (const path of PAGES) {
      await page.goto(`${host.address}${path}`);
      await expect(page.getByRole('heading', { level: 1 })).toBeAttached();
      await expect(page.getByText(/^(Loading|Counting|Connecting).*…/)).toHaveCount(0);
      await accessible(page, `${path} in ${colorScheme}`);
    }
  });
}

test('no page scrolls sideways on a phone or at 400 %', async ({ page, host }) => {
  // 1280 pixels at 400 % correspond to 320.
  for (const width of [390, 320]) {
    await page.setViewportSize({ width, height: 700 });
    for (const path of PAGES.filter((one) => !one.startsWith('/sql'))) {
      await page.goto(`${host.address}${path}`);
      await expect(page.getByRole('heading', { level: 1 })).toBeAttached();
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      expect(overflow, `${path} at ${width}`).toBeLessThanOrEqual(0);
    }
  }
  await page.goto(host.address);
  await page.getByRole('button', { name: 'Menu' }).click();
  await page.getByRole('link', { name: 'Audit', exact: true }).click();
  await expect(page.getByRole('heading', { name: 'Audit' })).toBeVisible();
});

test('screen readers get page names, row counts and a stable focus', async ({ page, host }) => {
  await page.goto(host.address);
  // Ages that change every second are not announced.
  await expect(page.getByText(/^Healthy:/)).toHaveAttribute('aria-live', 'polite');
  await expect(page.locator('[aria-live] time, [role="status"] time')).toHaveCount(0);
  await expect(page.locator('main').getByRole('link', { name: 'obs_events', exact: true })).toBeVisible();

  const navigation = page.getByRole('navigation', { name: 'Pages' });
  for (const name of ['Dead letters', 'Plugins', 'obs_events']) {
    await navigation.getByRole('link', { name }).click();
    await expect(page.getByRole('main', { name })).toBeFocused();
  }
  await page.getByRole('link', { name: 'Live', exact: true }).click();
  await expect(page.getByRole('main', { name: 'obs_events, live' })).toBeFocused();
  await page.getByRole('button', { name: 'Pause' }).click();
  await expect(page.getByRole('status').filter({ hasText: /^Paused/ })).toBeVisible();

  await page.goto(`${host.address}/tables/obs_events?filter=kind=nothing`);
  await expect(page.getByRole('status').filter({ hasText: /^0 rows/ })).toBeAttached();
  await page.getByRole('button', { name: 'Remove the filter kind=nothing' }).press('Enter');
  await expect(page.getByRole('main', { name: 'obs_events' })).toBeFocused();
  await expect(page.getByRole('status').filter({ hasText: /^4\s\d+ rows/ })).toBeAttached();
  // The link of a row is named by its time.
  const rows = page.getByRole('table', { name: 'Rows of obs_events' });
  await expect(rows.getByRole('link', { name: /^\d{4}-\d\d-\d\d \d\d:\d\d/ }).first()).toBeVisible();
});

test('dialogs and errors are associated with their controls', async ({ page }) => {
  const host = await Host.start({ plugins: ['obs-events'], env: { LANTERN__HTTP__SQL: 'true' } });
  try {
    await signedIn(page, host.token);
    await host.publish([{ subject: 'obs.x', payload: 'no JSON' }]);
    await host.handled('obs-events', 1);
    await page.goto(`${host.address}/plugins/obs-events`);
    const pause = page.getByRole('button', { name: 'Pause…' });
    await pause.press('Enter');
    await expect(page.getByRole('dialog', { name: 'Pause obs-events?' }).getByRole('textbox')).toBeFocused();
    await page.keyboard.press('Escape');
    await expect(pause).toBeFocused();

    await page.goto(`${host.address}/dead-letters`);
    const retry = page
      .getByRole('region', { name: 'obs-events/obs: malformed' })
      .getByRole('button', { name: 'Retry' });
    await retry.first().press('Enter');
    const dialog = page.getByRole('dialog', { name: /^Retry \d+ messages?\?/ });
    await expect(dialog).toBeFocused();
    await dialog.getByRole('button', { name: 'Retry' }).press('Enter');
    await expect(page.getByRole('status').filter({ hasText: /^Resolved \d+ of \d+ dead letters?/ })).toBeVisible();
    await expect(retry.first()).toBeFocused();

    await page.goto(`${host.address}/sql`);
    const query = page.getByRole('textbox', { name: 'SQL query' });
    await query.fill('delete from obs_events');
    const run = page.getByRole('button', { name: 'Run' });
    await run.press('Enter');
    await expect(page.getByRole('alert')).toBeVisible();
    await expect(run).toBeFocused();
    await expect(query).toHaveAttribute('aria-invalid', 'true');
    await expect(query).toHaveAccessibleDescription(/The query is invalid/);

    await page.goto(`${host.address}/sign-in`);
    await page.getByLabel('Token').fill('lantern_wrong');
    await page.keyboard.press('Enter');
    await expect(page.getByLabel('Token')).toHaveAccessibleDescription(/the token is unknown/);
  } finally {
    await host.stop();
  }
});

test('the theme and the time zone are remembered', async ({ page, host }) => {
  await page.goto(`${host.address}/audit`);
  await page.getByRole('button', { name: 'System theme' }).click();
  await page.getByRole('button', { name: 'Light' }).click();
  await page.getByRole('button', { name: 'Local time' }).click();
  await page.reload();
  await expect(page.locator('html')).toHaveAttribute('data-theme', 'dark');
  await expect(page.getByRole('button', { name: 'UTC' })).toBeVisible();
});

test('hostile values are shown exactly and have no effect', async ({ page }) => {
  const host = await Host.start({ plugins: ['obs-events'] });
  try {
    const big = `{"big":9223372036854775807,"nul":"a\\u0000b","html":"<script>window.harm=1</script>","long":"${'x'.repeat(1 << 20)}"}`;
    const at = new Date().toISOString();
    const payload = `{"pc_id":"<img src=x onerror=window.harm=1>","at":"${at}","kind":"\u202Egnp.exe","source":"s","payload":${big}}`;
    await host.publish([{ subject: 'obs.x', payload }]);
    await host.rows('obs_events', 1);
    await page.goto(`${host.address}/tables/obs_events`);
    const row = page.getByRole('table', { name: 'Rows of obs_events' }).getByRole('row').nth(1);
    await expect(row).toContainText('<img src=x onerror=window.harm=1>');
    await expect(row).toContainText('RLO');
    await row.getByRole('link').click();
    const drawer = page.getByRole('dialog', { name: /Row/ });
    await expect(drawer.getByText('9223372036854775807').first()).toBeVisible();
    await expect(drawer.getByTitle('U+0000 NUL').first()).toBeVisible();
    await expect(drawer.getByText('<script>window.harm=1</script>').first()).toBeVisible();
    await expect(drawer.getByRole('button', { name: /more characters/ }).first()).toBeVisible();
    expect(await page.evaluate(() => 'harm' in window)).toBe(false);
    // Large documents are not rendered completely.
    expect(await page.evaluate(() => document.body.textContent.length)).toBeLessThan(200_000);
  } finally {
    await host.stop();
  }
});

test('sign-in with a token, and a viewer has no controls that make changes', async ({ page }) => {
  const host = await Host.start({ plugins: ['obs-events'] });
  try {
    const { token } = await host.api<{ token: string }>('/api/v1/tokens', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ name: 'reader', role: 'viewer' }),
    });
    await page.goto(`${host.address}/sign-in`);
    await page.getByLabel('Token').fill('lantern_wrong');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await expect(page.getByRole('alert')).toContainText('the token is unknown');
    await page.getByLabel('Token').fill(token);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await expect(page.getByRole('button', { name: 'Sign out reader' })).toBeVisible();
    await page.goto(`${host.address}/plugins/obs-events`);
    await expect(page.getByRole('heading', { name: 'Versions' })).toBeVisible();
    await expect(page.getByRole('button', { name: 'Pause…' })).toHaveCount(0);
    await page.goto(`${host.address}/plugins`);
    await expect(page.getByLabel("A plugin's .wasm file")).toHaveCount(0);
    await page.getByRole('button', { name: 'Sign out reader' }).click();
    await expect(page.getByRole('link', { name: 'Sign in', exact: true })).toBeVisible();

    // An invalid token leads to the sign-in page.
    await signedIn(page, 'lantern_gone');
    await page.goto(`${host.address}/audit`);
    await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
  } finally {
    await host.stop();
  }
});

/** An address of this machine that is reachable from other machines. */
function reachable(): string | undefined {
  const all = Object.values(networkInterfaces()).flatMap((its) => its ?? []);
  return all.find((one) => one.family === 'IPv4' && !one.internal)?.address;
}

test('on a reachable address, nothing is shown without a token', async ({ page, context }) => {
  const ip = reachable();
  test.skip(ip === undefined, 'this machine has only loopback addresses');
  const host = await Host.start({
    plugins: ['obs-events'],
    listen: `${ip}:0`,
    env: { LANTERN__HTTP__HOSTS: String(ip) },
  });
  try {
    expect(host.address).toContain(String(ip));
    const big =
      '{"pc_id":"atlas","at":"2026-11-21T10:00:00Z","kind":"boot","source":"s","payload":{"n":9223372036854775807}}';
    await host.publish([
      { subject: 'obs.atlas', payload: big },
      { subject: 'obs.atlas', payload: 'no JSON' },
    ]);
    await host.rows('obs_events', 1);
    const { token } = await host.api<{ token: string }>('/api/v1/tokens', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ name: 'reader', role: 'viewer' }),
    });
    expect((await fetch(`${host.address}/api/v1/tables`)).status).toBe(401);

    // After sign-in, a shared address shows its page.
    await page.goto(`${host.address}/tables/obs_events?filter=kind=boot`);
    await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
    await expect(page.getByText('obs_events')).toHaveCount(0);
    await accessible(page, 'sign-in');
    await page.getByLabel('Token').fill(token);
    await page.getByRole('button', { name: 'Sign in' }).click();
    const row = page.getByRole('table', { name: 'Rows of obs_events' }).getByRole('row').nth(1);
    await expect(row).toContainText('9223372036854775807');
    expect(page.url()).toContain('filter=kind=boot');
    expect(page.url()).not.toContain(token);

    // A viewer has no controls that make changes, on any page.
    const changing = /^(Activate|Retry|Run canary|Discard( these)?…|Pause|Resume|Roll back|Change|choose one)/;
    for (const path of ['/', '/dead-letters', '/plugins', '/plugins/obs-events', '/audit']) {
      await page.goto(`${host.address}${path}`);
      await expect(page.getByRole('heading', { level: 1 })).toBeAttached();
      await expect(page.getByText(/^Loading/)).toHaveCount(0);
      for (const summary of await page.locator('summary').all()) await summary.click();
      await expect(page.getByRole('button', { name: changing })).toHaveCount(0);
    }
    await page.goto(`${host.address}/dead-letters`);
    await expect(page.getByRole('article')).toContainText('no JSON');

    // Copying works without TLS.
    await context.grantPermissions([]);
    await page.getByRole('button', { name: 'Copy' }).click();
    await expect(page.getByRole('button', { name: 'Copied' })).toBeVisible();

    await page.getByRole('button', { name: 'Sign out reader' }).click();
    await expect(page.getByRole('heading', { name: 'Sign in' })).toBeVisible();
    await expect(page.getByText('no JSON')).toHaveCount(0);
  } finally {
    await host.stop();
  }
});
