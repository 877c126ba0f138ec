// Measures the frame rate of a scrolling table.
import { defineConfig } from '@playwright/test';
import tests from './playwright.config';

export default defineConfig({
  ...tests,
  testMatch: 'frames.measure.ts',
  workers: 1,
  reporter: 'line',
});
