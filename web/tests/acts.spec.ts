// What changes the host: in the page, on a host of its own for each test.
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, signedIn, test } from './support/fixtures';
import { Host } from './support/host';
import { Broker } from './support/nats';
import { evolving, plugins } from './support/places';

/** The plugin that comes in many versions, as the version with this letter. */
function version(letter: string): Buffer {
  const bytes = Buffer.from(readFileSync(evolving()));
  const marker = 'evolving-letter:a';
  const at = bytes.indexOf(marker);
  if (at < 0) throw new Error('the evolving plugin has no letter');
  bytes.write(letter, at + marker.length - 1);
  return bytes;
}

const file = (name: string, buffer: Buffer) => ({ name, mimeType: 'application/wasm', buffer });

test('a plugin is loaded in the page, and its first rows are seen', async ({ page }) => {
  const host = await Host.start({ plugins: [] });
  try {
    await signedIn(page, host.token);
    await page.goto(`${host.address}/plugins`);
    await expect(page.getByText('Nothing is installed yet.')).toBeVisible();
    const component = readFileSync(join(plugins(), 'obs-events.wasm'));
    await page.getByLabel("A plugin's .wasm file").setInputFiles(file('obs-events.wasm', component));
    await expect(page.getByText('It is checked and kept.')).toBeVisible();
    await page.getByRole('button', { name: 'Activate…' }).click();
    const dialog = page.getByRole('dialog', { name: 'Run obs-events 0.1.0?' });
    await expect(dialog).toContainText('begins to read');
    await dialog.getByRole('button', { name: 'Activate' }).click();
    await expect(page.getByText('obs-events 0.1.0 runs.')).toBeVisible();

    await page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'obs_events' }).click();
    await expect(page.getByText('The table is empty.')).toBeVisible();
    const event = { pc_id: 'atlas', at: new Date().toISOString(), kind: 'boot', source: 'linux', payload: { n: 1 } };
    await host.publish([{ subject: 'obs.atlas', payload: event }]);
    await page.getByRole('button', { name: /Newer rows came/ }).click();
    await expect(page.getByRole('table', { name: 'Rows of obs_events' })).toContainText('boot');
  } finally {
    await host.stop();
  }
});

test('a dead letter is read after a fixed plugin came, and one is given up', async ({ page }) => {
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
    await page.getByRole('button', { name: 'Try again' }).first().click();
    const dialog = page.getByRole('dialog');
    await expect(dialog).toContainText('What it can read becomes rows');
    await dialog.getByRole('button', { name: 'Try again' }).click();
    await expect(page.getByRole('status').filter({ hasText: '0 of' })).toBeVisible();

    // The fixed version, checked and activated in the page.
    await page.goto(`${host.address}/plugins`);
    await page.getByLabel("A plugin's .wasm file").setInputFiles(file('evolving-e.wasm', version('e')));
    await expect(page.getByRole('heading', { name: /evolving 1\.3\.0/ })).toBeVisible();
    await page.getByRole('button', { name: /Try it on the last/ }).click();
    await expect(page.getByText('It makes other rows.')).toBeVisible();
    await page.getByRole('button', { name: 'Activate…' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Activate' }).click();
    await expect(page.getByText(/1 of 2 dead letters can be read now/)).toBeVisible();

    await page.goto(`${host.address}/dead-letters?state=resolved`);
    await expect(page.getByRole('region', { name: /evolving/ })).toBeVisible();
    await page.goto(`${host.address}/dead-letters`);
    await page.getByRole('button', { name: 'Give up…' }).first().click();
    await page.getByRole('dialog').getByRole('button', { name: 'Give up' }).click();
    await expect(page.getByText('Every message could be read.')).toBeVisible();
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
    await expect(page.getByText('evolving goes on.')).toBeVisible();
    await page.getByRole('button', { name: 'Roll back to 1.0.0' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Roll back' }).click();
    await expect(page.getByText('evolving 1.0.0 runs.')).toBeVisible();
  } finally {
    await host.stop();
  }
});

test('a file that is no plugin is refused in words', async ({ page }) => {
  const host = await Host.start({ plugins: [] });
  try {
    await signedIn(page, host.token);
    await page.goto(`${host.address}/plugins`);
    await page.getByLabel("A plugin's .wasm file").setInputFiles(file('x.wasm', Buffer.from('no component')));
    await expect(page.getByRole('alert')).toContainText('The plugin was not taken');
  } finally {
    await host.stop();
  }
});

test('a broker that goes away is told, and that it is back', async ({ page }) => {
  const broker = await Broker.start();
  const host = await Host.start({ plugins: ['obs-events'], nats: broker.url });
  try {
    await page.goto(host.address);
    await expect(page.getByText(/^All is well/)).toBeVisible();
    await broker.goAway();
    await expect(page.getByText(/^Not all is well: .*broker/)).toBeVisible({ timeout: 30_000 });
    await broker.comeBack();
    await expect(page.getByText(/^All is well/)).toBeVisible({ timeout: 30_000 });
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

test('a host that is gone is told, and what was there stays', async ({ page }) => {
  const host = await Host.start({ plugins: ['obs-events'] });
  try {
    await page.goto(host.address);
    await expect(page.getByText(/^All is well/)).toBeVisible();
  } finally {
    await host.stop();
  }
  await expect(page.getByRole('alert')).toContainText('The host does not answer');
  await expect(page.getByRole('row', { name: /obs-events/ })).toBeVisible();
});
