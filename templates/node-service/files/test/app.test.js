import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { version } from '../src/app.js';
import { listen, readConfig } from '../src/serve.js';

let server;
let url;

before(async () => {
  server = await listen({ server: { host: '127.0.0.1', port: 0 }, app: { greeting: 'good day' } });
  url = `http://127.0.0.1:${server.address().port}`;
});
after(() => server.close());

test('greets as it is configured to', async () => {
  const response = await fetch(`${url}/`);
  assert.deepEqual(await response.json(), { service: '<%= it.name %>', version, greeting: 'good day' });
});

test('says that it is well', async () => {
  const response = await fetch(`${url}/healthz`);
  assert.equal(response.status, 200);
  assert.equal((await response.json()).status, 'ok');
});

test('reads the configuration that the package brings', () => {
  const { server: address } = readConfig(new URL('../packaging/config.toml', import.meta.url));
  assert.equal(address.port, <%= it.port %>);
});
