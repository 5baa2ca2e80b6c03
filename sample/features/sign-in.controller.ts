import { Body, Controller, Get, Post, Redirect } from '@nestjs/common';
import { IdentityService, Session } from 'nest-visit';
import { authenticate, type User } from '../users.js';
import { fieldOf, type Form } from '../web/form.js';
import { html } from '../web/html.js';
import { HtmlPage } from '../web/page-headers.js';
import type { Page } from '../web/layout.js';
import { PageException, Pages } from '../web/pages.js';

@Controller()
export class SignInController {
  constructor(
    private readonly pages: Pages,
    private readonly identity: IdentityService,
  ) {}

  @Get('sign-in')
  @HtmlPage()
  async form(): Promise<string> {
    const user = await this.identity.user<User>();
    const texts = this.pages.texts.signIn;
    if (user)
      return this.pages.render({
        place: 'signIn',
        title: texts.title,
        body: html`<p class="intro">${texts.already(user.name)}</p>`,
      });
    return this.pages.render(this.formPage());
  }

  @Post('sign-in')
  @Redirect('/visits', 303)
  async signIn(@Body() form: Form): Promise<void> {
    const name = fieldOf(form, 'name');
    const user = await authenticate(name, fieldOf(form, 'password'));
    // Like every answer in the 400s it saves the session; whoever mistypes a password loses nothing.
    if (!user) throw new PageException(401, this.formPage(name));

    // The visit gets a new key in the same step. "Remember me" makes it permanent: it outlives the browser's session.
    await this.identity.login(user.id, { permanent: fieldOf(form, 'remember') === 'yes' });
    this.pages.notify(this.pages.texts.signIn.signedIn(user.name));
  }

  @Post('sign-out')
  @Redirect('/', 303)
  async signOut(@Session() session: Session): Promise<void> {
    const { preferences, texts } = this.pages;
    const hasPreferences = session.has('preferences');

    // The visit ends, and with it all that its session holds. What is set from here on goes into a new one.
    await this.identity.logout();
    if (hasPreferences) this.pages.preferences = preferences;
    this.pages.notify(texts.signIn.signedOut);
  }

  /** @param refused the name that was given with a wrong password */
  private formPage(refused?: string): Page {
    const texts = this.pages.texts.signIn;
    const state = refused !== undefined && html`aria-invalid="true" aria-describedby="wrong"`;
    return {
      place: 'signIn',
      title: texts.title,
      body: html` ${refused !== undefined && html`<p class="warning" role="alert" id="wrong">${texts.wrong}</p>`}
        <div class="columns">
          <form method="post" action="/sign-in" class="card">
            <label
              >${texts.name}
              <input name="name" value="${refused}" autocomplete="username" autocapitalize="none" required ${state}
            /></label>
            <label
              >${texts.password}
              <input name="password" type="password" autocomplete="current-password" required ${state}
            /></label>
            <label class="choice"><input type="checkbox" name="remember" value="yes" /> ${texts.remember}</label>
            <button>${texts.title}</button>
          </form>
          <section class="card" aria-labelledby="people">
            <h2 id="people">${texts.tryWith}</h2>
            <table>
              <tr>
                <th scope="col">${texts.name}</th>
                <th scope="col">${texts.password}</th>
              </tr>
              <tr>
                <td><code>ada</code></td>
                <td><code>engine-1843</code></td>
              </tr>
              <tr>
                <td><code>grace</code></td>
                <td><code>moth-1947</code></td>
              </tr>
            </table>
            <p><small>${texts.newKey}</small></p>
          </section>
        </div>`,
    };
  }
}
