import { Body, Controller, Get, Post, Query, UseGuards, UseInterceptors, ValidationPipe } from '@nestjs/common';
import { FileInterceptor } from '@nestjs/platform-express';
import { IsOptional, IsString } from 'class-validator';
import {
  CsrfGuard,
  CurrentUserId,
  CurrentVisit,
  FormTokenService,
  MemoryVisitStore,
  RequireFormToken,
  Session,
  SkipCsrf,
} from 'nest-visit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { platforms, startApp, type RunningApp } from '../support/app.js';

class Order {
  @IsString()
  name!: string;

  @IsOptional()
  @IsString()
  note?: string;
}

class Search {
  @IsString()
  text!: string;
}

@Controller()
@UseGuards(CsrfGuard)
class ShopController {
  constructor(private readonly tokens: FormTokenService) {}

  @Get('token')
  token() {
    return this.tokens.create();
  }

  @Get('search')
  search(@Query() { text }: Search, @CurrentVisit() visit: CurrentVisit) {
    return `${text} ${visit.isNew}`;
  }

  @Post('order')
  @RequireFormToken()
  order(
    @Body() order: Order,
    @Session() session: Session,
    @CurrentUserId() userId: string | null,
    @CurrentVisit() visit: CurrentVisit,
  ) {
    session.set('order', order.name);
    return { order, userId, isNew: visit.isNew };
  }

  @Post('upload')
  @SkipCsrf()
  @UseInterceptors(FileInterceptor('file'))
  async upload(@Body() body: { form_token?: string }) {
    return String(await this.tokens.consume(body.form_token));
  }
}

describe.each(platforms)("Nest's ValidationPipe under %s", (platform) => {
  let running: RunningApp;
  beforeAll(async () => {
    const options = { store: new MemoryVisitStore(), source: 'cookie, form', csrf: { requireToken: true } } as const;
    running = await startApp(platform, options, { controllers: [ShopController] }, (app) =>
      app.useGlobalPipes(
        new ValidationPipe({
          whitelist: true,
          forbidNonWhitelisted: true,
          validateCustomDecorators: true,
          transform: true,
        }),
      ),
    );
  });
  afterAll(() => running.close());

  const SAME = { 'sec-fetch-site': 'same-origin' };

  test('R5, R59: sees neither key nor token, and does not validate session or visit', async () => {
    const browser = running.browser();
    const form_token = (await browser.get('/token')).text;
    const visit_key = browser.jar.get('visit');
    const answer = await browser.post('/order', { headers: SAME, json: { name: 'tea', form_token, visit_key } });
    expect([answer.status, JSON.parse(answer.text)]).toEqual([
      201,
      { order: { name: 'tea' }, userId: null, isNew: false },
    ]);
    expect((await browser.get(`/search?text=tea&visit_key=${visit_key}`)).text).toBe('tea false');
    // It is at work.
    const more = (await browser.get('/token')).text;
    expect(
      (await browser.post('/order', { headers: SAME, json: { name: 'tea', form_token: more, other: 1 } })).status,
    ).toBe(400);
  });

  // Multer, which reads the fields after the guards, is of Express.
  if (platform !== 'express') return;
  test('N8: a form with a file, which has no header, sends its token in a field that the handler uses up', async () => {
    const browser = running.browser();
    const send = async (token: string): Promise<string> => {
      const body = new FormData();
      body.set('form_token', token);
      body.set('file', new Blob(['text']), 'a.txt');
      const headers = { cookie: `visit=${browser.jar.get('visit')}` };
      return (await fetch(`${running.address}/upload`, { method: 'POST', body, headers })).text();
    };
    const token = (await browser.get('/token')).text;
    expect([await send('A'.repeat(22)), await send(token), await send(token)]).toEqual(['false', 'true', 'false']);
  });
});
