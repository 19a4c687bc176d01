/**
 * Which snapshot of each suite a client was given, so that the indexes it asks for next are of the same one.
 *
 * Secret: who "the same client" is: the connection, and after it closed, the address for a while.
 */

/** Who asks. */
export interface Client {
  /** The connection. */
  readonly socket: object;
  readonly address: string;
}

export interface Pins {
  /** `suite`: as `suiteKey` writes it. */
  set(client: Client, suite: string, snapshot: number): void;
  get(client: Client, suite: string): number | undefined;
}

const PIN_MS = 15 * 60_000;
const PINNED_ADDRESSES = 10_000;

/** @param clock milliseconds, monotonic */
export function createPins(clock: () => number): Pins {
  const bySocket = new WeakMap<object, Map<string, number>>();
  const byAddress = new Map<string, { readonly id: number; readonly until: number }>();
  return {
    set(client, suite, snapshot) {
      const pins = bySocket.get(client.socket) ?? new Map<string, number>();
      pins.set(suite, snapshot);
      bySocket.set(client.socket, pins);
      if (byAddress.size > PINNED_ADDRESSES) byAddress.clear();
      byAddress.set(`${client.address}\n${suite}`, { id: snapshot, until: clock() + PIN_MS });
    },
    get(client, suite) {
      const own = bySocket.get(client.socket)?.get(suite);
      if (own !== undefined) return own;
      const pin = byAddress.get(`${client.address}\n${suite}`);
      return pin && pin.until > clock() ? pin.id : undefined;
    },
  };
}
