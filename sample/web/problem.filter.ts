import { Catch, HttpException, Logger, type ArgumentsHost, type ExceptionFilter } from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import { html } from './html.js';
import type { Page } from './layout.js';
import { pageHeaders } from './page-headers.js';
import { PageException, Pages } from './pages.js';
import type { Texts } from './texts.js';

/** Answers with a page whatever goes wrong. What it says comes from the texts, never from the error. */
@Catch()
export class ProblemFilter implements ExceptionFilter {
  private readonly logger = new Logger('Problem');

  constructor(
    private readonly host: HttpAdapterHost,
    private readonly pages: Pages,
  ) {}

  async catch(error: unknown, host: ArgumentsHost): Promise<void> {
    const status = statusOf(error);
    if (status === 500) this.logger.error(error instanceof Error ? error.stack : error);

    const body = await this.pages.renderProblem((texts) =>
      error instanceof PageException ? error.page : problemPage(status, texts),
    );

    const { httpAdapter } = this.host;
    const response: unknown = host.switchToHttp().getResponse();
    for (const [name, value] of Object.entries(pageHeaders)) httpAdapter.setHeader(response, name, value);
    httpAdapter.reply(response, body, status);
  }
}

function problemPage(status: number, { problems, goHome, layout }: Texts): Page {
  const known = status in problems ? (status as keyof typeof problems) : status < 500 ? 400 : 500;
  const { title, text } = problems[known];
  const [address, label] = status === 401 ? ['/sign-in', layout.nav.signIn] : ['/', goHome];
  return {
    title,
    body: html`<section class="card problem">
      <p class="status" aria-hidden="true">${status}</p>
      <p>${text}</p>
      <p><a class="button" href="${address}">${label}</a></p>
    </section>`,
  };
}

function statusOf(error: unknown): number {
  if (error instanceof HttpException) return error.getStatus();
  // Express and Fastify say so when a request cannot be read, such as a body that is too large.
  const status = (error as { statusCode?: unknown } | null)?.statusCode;
  return typeof status === 'number' && status >= 400 && status < 500 ? status : 500;
}
