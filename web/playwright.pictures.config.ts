// Takes the screenshots of the README: the main pages with generated events.
import { defineConfig } from '@playwright/test';
import tests from './playwright.config';

export default defineConfig({
  ...tests,
  testMatch: 'pictures.draw.ts',
  workers: 1,
  reporter: 'list',
});
