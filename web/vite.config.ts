// How the page is built. Everything goes to dist/page, which the host embeds; the dev server asks a host that runs.
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
