/** The web application. `createApp` gives an Express application for the server, and for the tests. */
import { readFileSync } from 'node:fs';
import express from 'express';

export const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));

export function createApp(settings = {}) {
  const app = express();
  app.disable('x-powered-by');
  const greeting = String(settings.greeting ?? 'hello');

  app.get('/', (_request, response) => {
    response.json({ service: '<%= it.name %>', version, greeting });
  });

  app.get('/healthz', (_request, response) => {
    response.json({ service: '<%= it.name %>', version, status: 'ok' });
  });

  return app;
}
