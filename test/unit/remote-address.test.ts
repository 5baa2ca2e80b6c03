import { expect, test } from 'vitest';
import { truncateAddress } from '../../lib/visit/remote-address.js';

test.each([
  ['192.0.2.55', '192.0.2.0'],
  ['::ffff:192.0.2.55', '192.0.2.0'],
  ['2001:db8:85a3:8d3:1319:8a2e:370:7348', '2001:db8:85a3::'],
  ['2001:db8::1', '2001:db8:0::'],
  ['fe80::1%eth0', 'fe80:0:0::'],
  ['::1', '0:0:0::'],
  ['nonsense', ''],
])('R34: %s is truncated to %s', (address, network) => {
  expect(truncateAddress(address)).toBe(network);
});
