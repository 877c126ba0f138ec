// Builds the page into dist/page, which the host embeds. The dev server forwards API requests to a running host.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

const host = process.env.LANTERN_HOST ?? 'http://127.0.0.1:7070';

export default defineConfig({
  plugins: [svelte()],
  build: {
    outDir: 'dist/page',
    emptyOutDir: true,
    target: ['chrome125', 'firefox127', 'safari17.5'],
    // The Content-Security-Policy allows no data: addresses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy: { '/api': host, '/readyz': host, '/metrics': host } },
});
