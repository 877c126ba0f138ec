// Begins the page. What is remembered of its look is set before anything is drawn.
import { mount } from 'svelte';
import App from './App.svelte';
import './app.css';
import { preferences } from './state/preferences.svelte';

preferences.apply();
const target = document.getElementById('app');
if (target) mount(App, { target });
