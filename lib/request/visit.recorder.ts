import { Inject, Injectable, Logger } from '@nestjs/common';
import type { HandlerPolicy } from '../context/handler-policy.js';
import type { RequestContext } from '../context/request.context.js';
import { Turn } from '../context/turn.js';
import { VISIT_OPTIONS } from '../options/tokens.js';
import type { ResolvedVisitOptions } from '../options/visit-options.interface.js';
import { PluginRegistry } from '../plugin/plugin.registry.js';
import { TouchQueue } from '../visit/touch.queue.js';
import { UNSEEN } from '../store/visit.store.js';
import { RENEWAL_GRACE, VisitWriter } from '../visit/visit.writer.js';
import { RequestUser } from './request-user.js';
import { reasonOf } from '../errors/failure.js';

/** The part of its timeout that a visit may lose if its process is killed or suspended. */
const MOST_LOST = 0.25;

/**
 * Records that a visit is in use, when the handler is known. Each step returns undefined if there is nothing to wait
 * for.
 */
@Injectable()
export class VisitRecorder {
  private readonly logger = new Logger('Visit');

  constructor(
    @Inject(VISIT_OPTIONS) private readonly options: ResolvedVisitOptions,
    @Inject(TouchQueue) private readonly touches: TouchQueue,
    @Inject(VisitWriter) private readonly writer: VisitWriter,
    @Inject(RequestUser) private readonly users: RequestUser,
    @Inject(PluginRegistry) private readonly plugins: PluginRegistry,
  ) {}

  /**
   * Reports refused keys, and ends their visits if the options say so. Also for a request that a guard denies later.
   */
  reportRefusals(context: RequestContext): Promise<void> | undefined {
    if (context.refusalsReported || context.lookup.is !== 'done') return undefined;
    context.refusalsReported = true;
    const { resolution } = context.lookup;
    if (!('refused' in resolution) || resolution.refused.length === 0) return undefined;
    return (async () => {
      for (const { reason, key } of resolution.refused) {
        await this.plugins.emit('onKeyRefused', {
          reason,
          visitId: key.id,
          remoteAddress: context.exchange.remoteAddress,
        });
        if (reason === 'retired' && this.options.onRetiredKey === 'end') await this.writer.end([key.id], 'retired-key');
      }
    })();
  }

  /** Touch, renewal by age, and once per request: creation, `request.user`, plugins. */
  record(context: RequestContext, policy: HandlerPolicy): Promise<void> | undefined {
    const { visit } = context;
    const isUnseen = visit.is === 'stored' && visit.record.previousKeyUntil === UNSEEN;
    const used = isUnseen ? this.useFirst(context, policy) : this.useUnlessPassive(context, policy);
    if (context.recording !== 'due') return used ?? (context.recording === 'done' ? undefined : context.recording);
    const rest = this.needsMore(context);
    if (!used && !rest) {
      context.recording = 'done';
      return undefined;
    }
    return (context.recording = (async () => {
      await used;
      if (rest) await this.recordMore(context);
      context.recording = 'done';
    })());
  }

  private needsMore(context: RequestContext): boolean {
    return this.isCreationDue(context) || this.options.identity.requestUser || this.plugins.has('onRecordRequest');
  }

  private async recordMore(context: RequestContext): Promise<void> {
    if (this.isCreationDue(context)) {
      await Turn.take(context, 'the beginning of a visit', async (turn) => {
        if (context.visit.is === 'unsaved') await this.writer.storeCurrent(turn);
      });
    }
    await this.users.showBefore(context);
    if (this.plugins.has('onRecordRequest'))
      await this.plugins.emit('onRecordRequest', context.unread, context.exchange.request);
  }

  /** A forged key creates no row, whatever the options. After the headers were sent, no visit can begin. */
  private isCreationDue({ lookup, visit, haveHeadersLeft, exchange }: RequestContext): boolean {
    if (this.options.creation !== 'immediate' || visit.is !== 'unsaved' || haveHeadersLeft || exchange.isCrossSitePost)
      return false;
    return lookup.is === 'done' && lookup.resolution.outcome === 'none' && lookup.resolution.presented !== 'forged';
  }

  private useUnlessPassive(context: RequestContext, policy: HandlerPolicy): Promise<void> | undefined {
    return policy.passive || context.visit.is !== 'stored' ? undefined : this.use(context, policy);
  }

  /**
   * The client has not used the current key before; this request may be the first one with it. Errors do not fail the
   * request.
   */
  private async useFirst(context: RequestContext, policy: HandlerPolicy): Promise<void> {
    const { key, record } = context.visit;
    if (key.matches(record.keyHash) && context.presented.keys.some((one) => one.equals(key))) {
      await this.writer.noteKeySeen(context).catch((error: unknown) => {
        this.logger.warn(
          `Could not record that the client received the new key of visit ${record.id}: ${reasonOf(error)}`,
        );
      });
    }
    await this.useUnlessPassive(context, policy);
  }

  private use(context: RequestContext, policy: HandlerPolicy): Promise<void> | undefined {
    const touched = this.touch(context, policy);
    return this.isKeyOld(context, policy) ? this.renew(context, touched) : touched;
  }

  private isKeyOld({ visit: { record, key } }: RequestContext, { source }: HandlerPolicy): boolean {
    const { renewAfter } = this.options;
    const age = this.options.clock.now() - record.keyChanged;
    // A renewal whose response was lost is repeated.
    const isLost = record.previousKeyUntil === UNSEEN && age >= RENEWAL_GRACE && key.matches(record.previousKeyHash);
    if (!isLost && (renewAfter === false || age < renewAfter)) return false;
    // Only the current key can be replaced, and only if it is in a cookie or a header.
    const sources = source ?? this.options.source;
    return (sources.includes('cookie') || sources.includes('header')) && (isLost || key.matches(record.keyHash));
  }

  /** Renews a key because of its age (S6). Errors do not fail the request. */
  private async renew(context: RequestContext, touched: Promise<void> | undefined): Promise<void> {
    await touched;
    if (context.haveHeadersLeft) return;
    try {
      await Turn.take(context, 'the renewal of a key', (turn) => this.writer.renew(turn));
    } catch (error) {
      this.logger.warn(`Could not renew the key of visit ${context.visit.record.id}: ${reasonOf(error)}`);
    }
  }

  private touch(context: RequestContext, policy: HandlerPolicy): Promise<void> | undefined {
    const { record, key } = context.visit;
    const { id, permanent, absoluteExpiry, accessed, created, keyChanged, expiry: written } = record;
    const now = this.options.clock.now();
    const expiry = this.writer.expiry(now, permanent, absoluteExpiry, policy.timeout);
    const gain = expiry - Math.max(written, this.touches.waiting(id) ?? 0);
    // A permanent cookie is sent again in the first request of each tenth of its life, so a lost response costs at most
    // a tenth.
    const part = this.options.permanentTimeout / 10;
    const isInNewPart = permanent && Math.floor((now - created) / part) !== Math.floor((accessed - created) / part);
    // A key in its grace period is not sent again: the browser has the new one, or is about to receive it.
    if (isInNewPart && key.matches(record.keyHash)) context.sendKey();
    if (gain < this.options.touch.resolution && !(isInNewPart && gain > 0)) return undefined;
    const touch = { id, accessed: now, expiry, keyChanged };
    context.amend({ expiry: Math.max(written, expiry) });
    // Other processes do not see the queue of this one. So an update is written immediately if they could otherwise
    // treat the visit as expired, or if too much would be lost if this process were killed or suspended right after its
    // response.
    const isUrgent = written - now <= 2 * this.options.touch.interval || expiry - written > MOST_LOST * (expiry - now);
    if (isUrgent && !context.clientStorage) return this.touches.addNow(touch);
    this.touches.add(touch);
    // A store that forgets the visit after the request does not see the queue either.
    return context.clientStorage ? this.touches.flush() : undefined;
  }
}
