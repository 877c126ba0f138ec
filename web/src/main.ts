// Mounts the dashboard. The stored theme is applied before the first paint.
import { mount } from 'svelte';
import App from './App.svelte';
import './app.css';
import { preferences } from './state/preferences.svelte';

preferences.apply();
const target = document.getElementById('app');
if (target) mount(App, { target });
