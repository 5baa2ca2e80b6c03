import type { CurrentRequest } from '../context/current-request.js';
import { findContext, requireContext } from '../context/request.context.js';
import type { FrameworkRequest } from '../platform/exchange.js';
import type { RequestEntry } from '../platform/platform.js';
import type { SessionSaver } from '../session/session.saver.js';
import type { RequestStory } from './request.story.js';

/** What serves the requests of an application. */
interface Serving {
  readonly story: RequestStory;
  readonly requests: CurrentRequest;
  readonly saver: SessionSaver;
}

/** What a platform does with each request of the application. */
export function requestEntry({ story, requests, saver }: Serving): RequestEntry {
  const sessionOf = (request: FrameworkRequest) => {
    const context = findContext(request);
    return context && story.owns(context) ? saver.sessionOf(requests.requireIn(context)).compatible : undefined;
  };
  return {
    enter: (request, response, next) => story.enter(request, response, next),
    hasEntered: (request) => {
      const context = findContext(request);
      return context !== undefined && story.owns(context);
    },
    session: sessionOf,
    sessionId: (request) => sessionOf(request)?.id,
    assignSession: (request, value) => {
      const context = requireContext(request);
      saver.sessionOf(context).assign(value);
    },
  };
}
