import type { ServerResponse } from 'node:http';
import {
  All,
  Controller,
  Injectable,
  Param,
  Req,
  Res,
  type INestApplication,
  type ModuleMetadata,
} from '@nestjs/common';
import { FormTokenService, IdentityService, Session, VisitService, type VisitModuleOptions } from 'nest-visit';
import { startApp, type PlatformName, type RunningApp } from './app.js';
import type { Answer, Ask, Browser } from './browser.js';

/** The tools of a handler that is written in a test. */
export interface Tools {
  readonly session: Session;
  readonly identity: IdentityService;
  readonly visits: VisitService;
  readonly tokens: FormTokenService;
  // The objects of the framework, whose types differ.
  readonly request: any;
  readonly reply: any;
  /** Node's response. */
  readonly raw: ServerResponse;
}

export type Handler = (tools: Tools) => unknown;

@Injectable()
class Handlers {
  readonly byName = new Map<string, Handler>();
}

@Controller()
class InlineController {
  constructor(
    private readonly handlers: Handlers,
    private readonly session: Session,
    private readonly identity: IdentityService,
    private readonly visits: VisitService,
    private readonly tokens: FormTokenService,
  ) {}

  @All('returned/:name')
  returned(@Param('name') name: string, @Req() request: any) {
    return this.call(name, request, request.res);
  }

  @All('sent/:name')
  sent(@Param('name') name: string, @Req() request: any, @Res() reply: any) {
    return this.call(name, request, reply);
  }

  private call(name: string, request: any, reply: any): unknown {
    const { session, identity, visits, tokens } = this;
    return this.handlers.byName.get(name)!({
      session,
      identity,
      visits,
      tokens,
      request,
      reply,
      raw: reply?.raw ?? reply,
    });
  }
}

/** An application whose handlers are written at the place of their calls. */
export class InlineApp {
  private readonly handlers: Handlers;
  private count = 0;

  private constructor(readonly running: RunningApp) {
    this.handlers = running.app.get(Handlers);
  }

  static async start(
    platform: PlatformName,
    options: VisitModuleOptions,
    { controllers = [], providers = [], ...parts }: ModuleMetadata = {},
    configure?: (app: INestApplication) => void,
  ): Promise<InlineApp> {
    return new InlineApp(
      await startApp(platform, options, InlineApp.parts({ controllers, providers, ...parts }), configure),
    );
  }

  static parts({ controllers = [], providers = [], ...parts }: ModuleMetadata = {}): ModuleMetadata {
    return { ...parts, controllers: [InlineController, ...controllers], providers: [Handlers, ...providers] };
  }

  /** For an application that was started in another way, with `parts()`. */
  static of(running: RunningApp): InlineApp {
    return new InlineApp(running);
  }

  browser(): Browser {
    return this.running.browser();
  }

  close(): Promise<void> {
    return this.running.close();
  }

  /** The path of a handler whose value is sent. */
  path(handler: Handler): string {
    return `/returned/${this.add(handler)}`;
  }

  /** The path of a handler that sends its response itself. */
  sendingPath(handler: Handler): string {
    return `/sent/${this.add(handler)}`;
  }

  /** Calls a handler whose value is sent. */
  async call(browser: Browser, handler: Handler, ask: Ask = {}): Promise<Answer> {
    return browser.get(this.path(handler), ask);
  }

  /** Calls a handler that sends its response itself. */
  async send(browser: Browser, handler: Handler, ask: Ask = {}): Promise<Answer> {
    return browser.get(this.sendingPath(handler), ask);
  }

  /** The result of a handler, of any type; or the error that it throws. */
  async ask<T>(browser: Browser, handler: (tools: Tools) => T | Promise<T>, ask: Ask = {}): Promise<T> {
    let outcome: { value: T } | undefined;
    const answer = await this.call(
      browser,
      async (tools) => {
        outcome = { value: await handler(tools) };
      },
      ask,
    );
    if (!outcome || answer.status !== 200) throw new Error(`the request failed: ${answer.status} ${answer.text}`);
    return outcome.value;
  }

  private add(handler: Handler): string {
    const name = `handler-${this.count++}`;
    this.handlers.byName.set(name, handler);
    return name;
  }
}
