import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import {
  chromium as playwright,
  type Browser,
  type BrowserContext,
  type BrowserContextOptions,
  type Page,
} from 'playwright-core';
import { chromium } from '../support/needs.js';
import { PATIENCE } from '../support/patience.js';

/**
 * Debian's Chromium without windows, beside the whole one: the same network and the same pages for a third of the
 * processor time. It does not know the settings of a user.
 */
const headlessShell = join(dirname(chromium ?? ''), 'chromium-headless-shell');

const launchOptions = {
  executablePath: chromium,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
};

export function launchBrowser(): Promise<Browser> {
  return playwright.launch(
    existsSync(headlessShell) ? { ...launchOptions, executablePath: headlessShell } : launchOptions,
  );
}

/** The folder for screenshots, which take longer than most of what they show: none are made where nobody names one. */
const artifacts = process.env['VISIT_TEST_ARTIFACTS'];

/** One person with one browser profile: cookies of their own, and a record of what no page of the sample may cause. */
export class Visitor {
  /** Console messages of warning and worse, exceptions, and requests to other hosts than the sample's. */
  readonly complaints: string[] = [];

  private constructor(
    readonly context: BrowserContext,
    readonly page: Page,
    private address: string,
  ) {
    context.setDefaultTimeout(PATIENCE);
    context.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) this.complaints.push(`console: ${message.text()}`);
    });
    context.on('weberror', (error) => this.complaints.push(`exception: ${error.error().message}`));
    context.on('request', (request) => {
      const url = new URL(request.url());
      if (url.protocol !== 'data:' && url.origin !== this.address) this.complaints.push(`request: ${url.href}`);
    });
  }

  static async arrive(browser: Browser, address: string, options: BrowserContextOptions = {}): Promise<Visitor> {
    const context = await browser.newContext(options);
    return new Visitor(context, await context.newPage(), address);
  }

  /** A browser whose user has switched cookies off, in its settings. `profile` is an empty folder. */
  static async arriveWithoutCookies(address: string, profile: string): Promise<Visitor> {
    mkdirSync(join(profile, 'Default'), { recursive: true });
    writeFileSync(
      join(profile, 'Default', 'Preferences'),
      JSON.stringify({ profile: { default_content_setting_values: { cookies: 2 } } }),
    );
    const context = await playwright.launchPersistentContext(profile, launchOptions);
    return new Visitor(context, context.pages()[0] ?? (await context.newPage()), address);
  }

  /** The sample was started again, at another port. Cookies do not care about ports. */
  moveTo(address: string): void {
    this.address = address;
  }

  /** Opens a page; its status. */
  async open(path: string): Promise<number> {
    const response = await this.page.goto(`${this.address}${path}`);
    return response!.status();
  }

  text(selector: string): Promise<string> {
    return this.page.locator(selector).innerText();
  }

  press(button: string): Promise<void> {
    return this.page.getByRole('button', { name: button }).click();
  }

  async signIn(name: string, password: string): Promise<void> {
    await this.open('/sign-in');
    await this.page.getByLabel('Name').fill(name);
    await this.page.getByLabel('Password').fill(password);
    await this.press('Sign in');
  }

  /** The visit's cookie, as the browser keeps it. */
  async cookie(): Promise<{ value: string; expires: number; httpOnly: boolean; sameSite: string } | undefined> {
    return (await this.context.cookies()).find(({ name }) => name === 'visit');
  }

  /** The complaints so far, which are then forgiven. */
  takeComplaints(): string[] {
    return this.complaints.splice(0);
  }

  async screenshot(name: string): Promise<void> {
    if (artifacts) await this.page.screenshot({ path: join(artifacts, `${name}.png`), fullPage: true });
  }
}
