import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Controller, Get, Header } from '@nestjs/common';
import { SkipVisit } from 'nest-visit';

const FOREVER = 'public, max-age=31536000, immutable';

const read = (name: string): string => readFileSync(new URL(`../public/${name}`, import.meta.url), 'utf8');
const stylesheet = read('style.css');
const icon = read('icon.svg');

/** Changes with the contents, so that browsers may keep a file forever and still see the next version. */
const version = createHash('sha256').update(stylesheet).update(icon).digest('base64url').slice(0, 8);

export const assets = { stylesheet: `/assets/style.css?v=${version}`, icon: `/assets/icon.svg?v=${version}` };

/** The same for everybody: no visit is looked up, so these answers cost no query. */
@SkipVisit()
@Controller('assets')
export class AssetsController {
  @Get('style.css')
  @Header('Content-Type', 'text/css; charset=utf-8')
  @Header('Cache-Control', FOREVER)
  stylesheet(): string {
    return stylesheet;
  }

  @Get('icon.svg')
  @Header('Content-Type', 'image/svg+xml')
  @Header('Cache-Control', FOREVER)
  icon(): string {
    return icon;
  }
}
