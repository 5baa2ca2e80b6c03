import { Inject, Injectable } from '@nestjs/common';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { PluginRegistry } from '../plugin/plugin.registry.js';
import { StoreAccess } from '../store/store-access.js';
import type { IdentityRecord, VisitRecord } from '../store/visit.store.js';
import { deviceOf } from '../visit/device.js';

/**
 * Reports when a user signs in with a device that none of their earlier visits had. It needs one query per sign-in,
 * only if there are listeners.
 */
@Injectable()
export class NewDeviceNotice {
  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: Pick<ResolvedVisitOptions, 'record'>,
    @Inject(StoreAccess) private readonly store: StoreAccess,
    @Inject(PluginRegistry) private readonly plugins: PluginRegistry,
  ) {}

  /** Called after the user has been linked to the visit. */
  async give({ id, userAgent, remoteAddress }: VisitRecord, { userId, created }: IdentityRecord): Promise<void> {
    if (!this.options.record.userAgent || !this.plugins.has('onNewDevice')) return;
    if (!this.store.supports('users')) return;
    // Of two sign-ins at the same moment neither is earlier, and both are reported.
    const users = this.store.facet('users', 'onNewDevice');
    const earlier = await this.store.read(() => users.userAgentsOf(userId, created));
    const device = deviceOf(userAgent);
    if (earlier.some((other) => deviceOf(other) === device)) return;
    const isFirst = earlier.length === 0;
    await this.plugins.emit('onNewDevice', {
      visitId: id,
      userId,
      device,
      remoteAddress,
      isFirst,
      at: new Date(created),
    });
  }
}
