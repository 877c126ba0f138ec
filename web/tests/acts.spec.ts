// Changes to the host through the dashboard. Each test starts its own host.
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from '@playwright/test';
import { accessible, expect, signedIn, test } from './support/fixtures';
import { Host } from './support/host';
import { Broker } from './support/nats';
import { evolving, plugins } from './support/places';

/** The evolving plugin, as the version with this letter. */
function version(letter: string): Buffer {
  const bytes = Buffer.from(readFileSync(evolving()));
  const marker = 'evolving-letter:a';
  const at = bytes.indexOf(marker);
  if (at < 0) throw new Error('the evolving plugin has no letter');
  bytes.write(letter, at + marker.length - 1);
  return bytes;
}

const file = (name: string, buffer: Buffer) => ({ name, mimeType: 'application/wasm', buffer });

/** Drops a file onto the page, outside of the upload area. */
async function drop(page: Page, name: string, bytes: Buffer): Promise<void> {
  const transfer = await page.evaluateHandle(
    ([name, base64]) => {
      const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], name, { type: 'application/wasm' }));
      return transfer;
    },
    [name, bytes.toString('base64')] as const,
  );
  const place = page.getByRole('group', { name: 'Upload a plugin' });
  await place.waitFor();
  await page.dispatchEvent('main', 'dragover', { dataTransfer: transfer });
  await expect(place).toHaveClass(/over/);
  await page.dispatchEvent('main', 'drop', { dataTransfer: transfer });
}

test('a plugin is installed, and its first rows appear', async ({ page }) => {
  const host = await Host.start({ plugins: [] });
  try {
    await signedIn(page, host.token);
    await page.goto(`${host.address}/plugins`);
    await expect(page.getByText('No plugin is installed.')).toBeVisible();
    const component = readFileSync(join(plugins(), 'obs-events.wasm'));
    await page.getByLabel("A plugin's .wasm file").setInputFiles(file('obs-events.wasm', component));
    await expect(page.getByText('Installed. No version of')).toBeVisible();
    await page.getByRole('button', { name: 'Activate…' }).click();
    const dialog = page.getByRole('dialog', { name: 'Activate obs-events 0.1.0?' });
    await expect(dialog).toContainText('from the beginning of its streams');
    await dialog.getByRole('button', { name: 'Activate' }).click();
    await expect(page.getByText('obs-events 0.1.0 is active.')).toBeVisible();

    await page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'obs_events' }).click();
    await expect(page.getByText('The table is empty.')).toBeVisible();
    const event = { pc_id: 'atlas', at: new Date().toISOString(), kind: 'boot', source: 'linux', payload: { n: 1 } };
    await host.publish([{ subject: 'obs.atlas', payload: event }]);
    await page.getByRole('button', { name: 'Show new rows' }).click();
    await expect(page.getByRole('table', { name: 'Rows of obs_events' })).toContainText('boot');
  } finally {
    await host.stop();
  }
});

test('the manifest of a dropped file is shown before activation', async ({ page }) => {
  const host = await Host.start({ plugins: [] });
  try {
    await signedIn(page, host.token);
    await page.goto(`${host.address}/plugins`);
    await drop(page, 'nonsense.wasm', Buffer.from('no component'));
    await expect(page.getByRole('alert')).toContainText('The plugin was not installed');
    await expect(page.getByRole('alert')).toContainText('not a WebAssembly component');
    await expect(page.getByText('No plugin is installed.')).toBeVisible();

    await drop(page, 'host-perf.wasm', readFileSync(join(plugins(), 'host-perf.wasm')));
    await expect(page.getByText('Installed. No version of')).toBeVisible();
    await expect(page).toHaveURL(/\/plugins\/host-perf\?version=sha256:/);
    const candidate = page.getByRole('region', { name: /^Version / });
    await expect(candidate.getByText('core NATS, without storage')).toBeVisible();
    const columns = candidate.getByRole('table', { name: 'Columns of host_perf' });
    await expect(columns.getByRole('row', { name: /^mem_used_bytes/ })).toContainText('integer, nullable');
    await expect(columns.getByRole('row', { name: /^mem_used_bytes/ })).toContainText('measure');
    await expect(columns.getByRole('row', { name: /^cpu_pct/ })).toContainText('%');
    await expect(candidate.getByText('64 MiB of memory')).toBeVisible();
    await accessible(page, 'a candidate');
    await expect(page.getByText('No active source.')).toBeVisible();
    expect(await host.api('/api/v1/tables')).toEqual([]);
  } finally {
    await host.stop();
  }
});

test('a plugin limit is set, rejected when out of range, and reset', async ({ page }) => {
  const host = await Host.start({ plugins: ['obs-events'] });
  try {
    await signedIn(page, host.token);
    await page.goto(`${host.address}/plugins/obs-events`);
    await page.getByText('Limits and settings').click();
    const row = page.getByRole('row', { name: /limits\.memory/ });
    await expect(row).toContainText('64 MiB default');
    await row.getByRole('button').click();
    const dialog = page.getByRole('dialog', { name: 'Set limits.memory of obs-events?' });
    await dialog.getByRole('textbox').fill('1 KiB');
    await dialog.getByRole('button', { name: 'Set' }).click();
    await expect(dialog.getByRole('alert')).toContainText('out of range');
    await dialog.getByRole('textbox').fill('128 MiB');
    await dialog.getByRole('button', { name: 'Set' }).click();
    await expect(page.getByText('limits.memory is now 128 MiB.')).toBeVisible();
    await expect(row).not.toContainText('default');
    expect(await host.api('/api/v1/plugins/obs-events/settings')).toEqual({ limits: { memory: '128 MiB' } });
    await row.getByRole('button').click();
    await dialog.getByRole('textbox').fill('');
    await dialog.getByRole('button', { name: 'Set' }).click();
    await expect(row).toContainText('64 MiB default');
  } finally {
    await host.stop();
  }
});

test('many dead letters are grouped by reason', async ({ page }) => {
  const host = await Host.start({ plugins: ['obs-events'] });
  try {
    await signedIn(page, host.token);
    const letters = Array.from({ length: 1_200 }, (_, n) => ({
      subject: 'obs.x',
      payload: n % 3 === 0 ? 'no JSON' : n % 3 === 1 ? { pc_id: 'a', n } : { pc_id: n },
    }));
    await host.publish(letters);
    await host.handled('obs-events', letters.length);
    await page.goto(`${host.address}/dead-letters`);
    const group = page.getByRole('region', { name: 'obs-events/obs: malformed' });
    await expect(group.getByRole('heading')).toContainText(/1\s200/);
    await expect(group.locator('.reason')).toHaveCount(3);
    // The first page of one reason contains only dead letters with that reason.
    await group.getByRole('button', { name: /missing field/ }).click();
    await expect(group.getByRole('article')).toHaveCount(10);
    await expect(group.getByRole('article').first()).toContainText('missing field `at`');
    await group.getByRole('button', { name: 'Load older' }).click();
    await expect(group.getByRole('article')).toHaveCount(20);
    // The address selects the open reason.
    await page.reload();
    await expect(group.getByRole('article')).toHaveCount(10);
    await page.goBack();
    await expect(group.getByRole('article')).toHaveCount(0);
    await page.goForward();
    await group.getByRole('button', { name: 'Discard these…' }).click();
    const dialog = page.getByRole('dialog', { name: /Discard 400 messages/ });
    await expect(dialog).toContainText('missing field');
    await dialog.getByRole('button', { name: 'Discard' }).click();
    await expect(page.getByText('Discarded 400 dead letters.')).toBeVisible();
    await expect(group.locator('.reason')).toHaveCount(2);
    await expect(group.getByRole('heading')).toContainText('800');

    // Many reasons: a few are shown, and the search finds the others.
    const times = [...'abcdefghijklmnopqr'].map((letter) => ({
      subject: 'obs.x',
      payload: { pc_id: 'a', at: `time ${letter}${letter}`, kind: 'k', source: 's', payload: {} },
    }));
    await host.publish(times);
    await host.handled('obs-events', letters.length + times.length);
    await page.getByRole('button', { name: 'Refresh' }).click();
    await expect(group.locator('.reason')).toHaveCount(15);
    await group.getByRole('button', { name: '5 more reasons' }).click();
    await expect(group.locator('.reason')).toHaveCount(20);
    await page.getByRole('searchbox', { name: 'Find in the reasons' }).fill('TIME QQ');
    await expect(group.locator('.reason')).toHaveCount(1);
    await expect(page).toHaveURL(/find=TIME\+QQ/);
  } finally {
    await host.stop();
  }
});

test('a fixed plugin resolves a dead letter, and another is discarded', async ({ page }) => {
  const host = await Host.start({ plugins: [] });
  try {
    const temporary = join(host.folder, 'evolving.part');
    writeFileSync(temporary, version('a'));
    renameSync(temporary, join(host.pluginFolder, 'evolving.wasm'));
    await signedIn(page, host.token);
    await page.goto(`${host.address}/plugins/evolving`);
    await expect(page.getByText('running')).toBeVisible();
    await host.publish([
      { subject: 'evolve.x', payload: '1' },
      { subject: 'evolve.x', payload: 'later 2' },
      { subject: 'evolve.x', payload: 'nonsense' },
    ]);
    await page.goto(`${host.address}/dead-letters`);
    await expect(page.getByText('later', { exact: false }).first()).toBeVisible();
    await page.getByRole('button', { name: 'Retry' }).first().click();
    const dialog = page.getByRole('dialog');
    await expect(dialog).toContainText('Messages that it projects become rows');
    await dialog.getByRole('button', { name: 'Retry' }).click();
    await expect(page.getByRole('status').filter({ hasText: 'Resolved 0 of' })).toBeVisible();

    // Install and activate the fixed version.
    await page.goto(`${host.address}/plugins`);
    await page.getByLabel("A plugin's .wasm file").setInputFiles(file('evolving-e.wasm', version('e')));
    await expect(page.getByRole('heading', { name: /evolving 1\.3\.0/ })).toBeVisible();
    await page.getByRole('button', { name: /Run canary on the last/ }).click();
    await expect(page.getByText('The candidate produces different rows.')).toBeVisible();
    await page.getByRole('button', { name: 'Activate…' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Activate' }).click();
    await expect(page.getByText(/Resolved 1 of 2 dead letters/)).toBeVisible();

    await page.goto(`${host.address}/dead-letters?state=resolved`);
    await expect(page.getByRole('region', { name: /evolving/ })).toBeVisible();
    await page.goto(`${host.address}/dead-letters`);
    await page.getByRole('button', { name: 'Discard…' }).first().click();
    await page.getByRole('dialog').getByRole('button', { name: 'Discard' }).click();
    await expect(page.getByText('No open dead letters.')).toBeVisible();
    await page.goto(`${host.address}/audit`);
    await expect(page.getByRole('row', { name: /dead-letters.discard/ })).toBeVisible();
  } finally {
    await host.stop();
  }
});

test('a plugin is paused with a reason, resumed and rolled back', async ({ page }) => {
  const host = await Host.start({ plugins: [] });
  try {
    const wasm = { 'content-type': 'application/wasm' };
    for (const letter of ['a', 'b']) {
      const body = new Uint8Array(version(letter));
      await host.api('/api/v1/plugins?activate=true', { method: 'POST', headers: wasm, body });
    }
    await signedIn(page, host.token);
    await page.goto(`${host.address}/plugins/evolving`);
    await page.getByRole('button', { name: 'Pause…' }).click();
    await page.getByRole('dialog').getByRole('textbox').fill('the disk is replaced');
    await page.getByRole('dialog').getByRole('button', { name: 'Pause' }).click();
    await expect(page.getByText('the disk is replaced (by local)')).toBeVisible();
    await page.getByRole('button', { name: 'Resume' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Resume' }).click();
    await expect(page.getByText('evolving is resumed.')).toBeVisible();
    await page.getByRole('button', { name: 'Roll back to 1.0.0' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Roll back' }).click();
    await expect(page.getByText('evolving 1.0.0 is active.')).toBeVisible();
  } finally {
    await host.stop();
  }
});

test('lost messages are counted and listed as gaps', async ({ page }) => {
  const host = await Host.start({ plugins: ['obs-events'] });
  const event = { pc_id: 'atlas', at: new Date().toISOString(), kind: 'boot', source: 'linux', payload: {} };
  const three = Array.from({ length: 3 }, () => ({ subject: 'obs.atlas', payload: event }));
  try {
    await host.publish(three);
    await host.rows('obs_events', 3);
    await signedIn(page, host.token);
    await page.goto(`${host.address}/gaps`);
    await expect(page.getByText('No gaps: no message was lost.')).toBeVisible();
    const json = { method: 'POST', headers: { 'content-type': 'application/json' } };
    await host.api('/api/v1/plugins/obs-events/pause', { ...json, body: '{"reason":"test"}' });
    await host.publish(three);
    // Purges all messages before sequence 7, whether or not that message exists yet.
    await host.publish([{ subject: '$JS.API.STREAM.PURGE.OBS_EVENTS _INBOX.purged', payload: { seq: 7 } }]);
    await host.publish(three);
    await host.api('/api/v1/plugins/obs-events/resume', { method: 'POST' });
    await host.rows('obs_events', 6);

    await page.goto(host.address);
    await page.getByRole('link', { name: '3 lost messages' }).click();
    await expect(page.getByRole('row', { name: /obs-events \/ obs OBS_EVENTS 1 4–6 3 / })).toBeVisible();
    await accessible(page, 'gaps');
  } finally {
    await host.stop();
  }
});

test('a file that is not a plugin is rejected with a message', async ({ page }) => {
  const host = await Host.start({ plugins: [] });
  try {
    await signedIn(page, host.token);
    await page.goto(`${host.address}/plugins`);
    await page.getByLabel("A plugin's .wasm file").setInputFiles(file('x.wasm', Buffer.from('no component')));
    await expect(page.getByRole('alert')).toContainText('The plugin was not installed');
  } finally {
    await host.stop();
  }
});

test('the dashboard reports a lost and a restored broker connection', async ({ page }) => {
  const broker = await Broker.start();
  const host = await Host.start({ plugins: ['obs-events'], nats: broker.url });
  try {
    await page.goto(host.address);
    await expect(page.getByText(/^Healthy:/)).toBeVisible();
    await broker.kill();
    await expect(page.getByText(/^Problem: .*broker/)).toBeVisible({ timeout: 30_000 });
    // Other pages report it as well.
    await page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'obs_events' }).click();
    await page.getByRole('status').getByRole('link', { name: 'See the overview' }).click();
    await broker.restart();
    await expect(page.getByText(/^Healthy:/)).toBeVisible({ timeout: 30_000 });
    await host.publish([
      {
        subject: 'obs.atlas',
        payload: { pc_id: 'atlas', at: new Date().toISOString(), kind: 'boot', source: 'x', payload: {} },
      },
    ]);
    await host.rows('obs_events', 1);
  } finally {
    await host.stop();
    await broker.stop();
  }
});

test('the dashboard reports an unreachable host and keeps the last data', async ({ page }) => {
  const host = await Host.start({ plugins: ['obs-events'] });
  try {
    await page.goto(host.address);
    await expect(page.getByText(/^Healthy:/)).toBeVisible();
  } finally {
    await host.stop();
  }
  await expect(page.getByRole('alert')).toContainText('The host does not answer');
  await expect(page.getByRole('row', { name: /obs-events/ })).toBeVisible();
});
