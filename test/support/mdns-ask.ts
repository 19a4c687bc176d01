/** What `--proxy auto` finds in the network that it is run in: prints ADDRESS:PORT. */
import { discover } from '../../src/proxy/mdns.ts';

const found = await discover('_apt_proxy._tcp', 20_000);
process.stdout.write(found ? `${found.address}:${found.port}\n` : 'nothing\n');
