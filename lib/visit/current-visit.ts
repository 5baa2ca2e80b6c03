import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import { opaque } from '../context/opaque-parameter.js';
import { requireContext } from '../context/request.context.js';
import type { VisitView } from '../context/visit-view.js';

/** The visit of the current request. */
export type CurrentVisit = VisitView;

// Typed as a class too, so that TypeScript emits it as metadata.
type CurrentVisitToken = (() => ParameterDecorator) & (abstract new (...args: never[]) => CurrentVisit);

/**
 * The parameter decorator for the visit of the current request, and its type.
 *
 * @throws VisitNotResolvedError under `@SkipVisit()`; VisitStoreUnavailableError (503) if the look-up failed
 */
export const CurrentVisit = opaque(
  createParamDecorator((_: unknown, execution: ExecutionContext) => requireContext(execution).current),
  () => CurrentVisit,
) as unknown as CurrentVisitToken;
