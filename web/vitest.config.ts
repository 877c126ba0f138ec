// The unit tests stand beside what they test.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  plugins: [svelte()],
  test: { include: ['src/**/*.test.ts'], reporters: ['default', './tests/support/unit-reporter.ts'] },
});
