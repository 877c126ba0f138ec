// Unit tests are next to the code that they test. State modules run in their browser variant, on a simulated DOM.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  plugins: [svelte()],
  resolve: { conditions: ['browser'] },
  test: {
    include: ['src/**/*.test.ts'],
    environment: 'happy-dom',
    environmentOptions: { happyDOM: { url: 'http://lantern.test/' } },
    reporters: ['default', './tests/support/unit-reporter.ts'],
  },
});
