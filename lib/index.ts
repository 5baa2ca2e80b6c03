/**
 * Visits, sessions and identity for NestJS.
 *
 * @module nest-visit
 */

export { VisitModule } from './visit.module.js';

// Options
export type {
  Clock,
  SiteData,
  VisitCacheOptions,
  VisitCookieOptions,
  VisitStreamsOptions,
  VisitCsrfOptions,
  VisitEncryptionOptions,
  VisitExpungeOptions,
  VisitFormTokensOptions,
  VisitIdentityOptions,
  VisitModuleOptions,
  VisitRecordOptions,
  VisitSessionOptions,
  VisitSettings,
  VisitsInDataSource,
  VisitsInStore,
  VisitSource,
  VisitTouchOptions,
  VisitWipeOptions,
} from './options/visit-options.interface.js';
export { nistPolicies } from './options/nist-policies.js';
export type { Duration } from './options/duration.js';
export type { EncryptionKey, PlainData } from './options/encryption.js';
export type { NewDataSource, OpenDataSource } from './options/typeorm-types.js';

// Visits
export { CurrentVisit } from './visit/current-visit.js';
export type { DescribedHandler, DescribedPolicy } from './options/described-policy.js';
export {
  VisitService,
  type CreateVisitOptions,
  type EndVisitOptions,
  type ListVisitsOptions,
  type VerifiedVisit,
  type VisitSummary,
} from './visit.service.js';
export type { Handshake, RequestWithHeaders } from './platform/handshake.js';
export { ExclusiveSession, PassiveVisit, SkipVisit, UseVisit, type VisitOverrides } from './request/handler-policy.js';

// Operations
export { VisitHealth, type VisitHealthStatus } from './observe/visit-health.js';
export type { ObservedCall, TelemetryEvent, VisitTelemetry } from './observe/visit-telemetry.js';

// Session
export {
  Session,
  type RequestSession,
  type RequestSessionCookie,
  type RequestSessionMethods,
  type SessionMethods,
} from './session/session.js';
// By `*`: only so can an application add to an interface that is declared elsewhere.
export type * from './session/session-data.js';
export { DefaultSessionSerializer, type SessionSerializer } from './session/session.codec.js';

// Identity
export { IdentityService, type LoginOptions, type LogoutOptions } from './identity/identity.service.js';
export { CurrentUserId, IdentityGuard, RequireFresh, RequireIdentity } from './identity/identity.guard.js';

// Form tokens and requests across sites
export { CsrfGuard, SkipCsrf } from './form-token/csrf.guard.js';
export { FormTokenGuard, RequireFormToken } from './form-token/form-token.guard.js';
export { FormTokenService } from './form-token/form-token.service.js';

// Plugins
export {
  VISIT_EVENTS,
  VisitPlugin,
  type EndedAll,
  type EndedVisit,
  type ExpungedVisits,
  type IdentityChange,
  type NewDevice,
  type ReachedLimit,
  type RefusedKey,
  type VisitPluginHooks,
  type VisitPluginOptions,
} from './plugin/visit-plugin.js';

// Cleaning up
export { ExpungeService, type ExpungeOptions, type WipeOptions } from './expunge/expunge.service.js';

// Stores
export type {
  CleanUpBatch,
  ClientCopy,
  ClientStorage,
  EndedBatch,
  EndingBatch,
  ExpungedBatch,
  KeptVisits,
  ListPosition,
  Lock,
  LockResult,
  StaleCounts,
  UserEndingBatch,
  UserList,
  UserVisits,
  VisitCleanup,
  VisitClients,
  VisitLocks,
  VisitPage,
  VisitPages,
  VisitServer,
  WipedBatch,
} from './store/visit.facets.js';
export {
  VisitStore,
  type Ending,
  type IdentityRecord,
  type ListedVisit,
  type Refusal,
  type Rekey,
  type RekeyResult,
  type SaveResult,
  type SessionSave,
  type Touch,
  type VisitRecord,
  type VisitStoreCapabilities,
  type WriteGuard,
} from './store/visit.store.js';
export { MemoryVisitStore, type MemoryVisitStoreOptions } from './store/memory/memory-visit.store.js';
export {
  MovingVisitStore,
  type MovedPage,
  type MovingVisitStoreOptions,
  type RefusedVisit,
} from './store/moving/moving-visit.store.js';

// Errors
export {
  CrossSiteRequestError,
  FormTokenError,
  FreshIdentityRequiredError,
  IdentityRequiredError,
  SessionDataError,
  VisitClockError,
  VisitEndedError,
  VisitError,
  VisitHeadersSentError,
  VisitHttpError,
  VisitKeyRetiredError,
  VisitLimitError,
  VisitLockedError,
  VisitLockLostError,
  VisitNestedCallError,
  VisitOpenTransactionError,
  VisitNoResponseError,
  VisitNotResolvedError,
  VisitOptionError,
  VisitSchemaError,
  VisitServerSettingError,
  VisitStoreUnsupportedError,
  VisitStoreUnavailableError,
  VisitWriteConflictError,
  type RefusedSetting,
  type VisitErrorCode,
} from './errors/visit.error.js';
