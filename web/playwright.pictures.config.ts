// Draws the pictures of the README: the main pages on made-up events.
import { defineConfig } from '@playwright/test';
import tests from './playwright.config';

export default defineConfig({
  ...tests,
  testMatch: 'pictures.draw.ts',
  workers: 1,
  reporter: 'list',
});
