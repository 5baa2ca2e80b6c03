import { BadRequestException, Body, Controller, Get, Post, Redirect } from '@nestjs/common';
import { fieldOf, type Form } from '../web/form.js';
import { html, type Html } from '../web/html.js';
import { HtmlPage } from '../web/page-headers.js';
import { themes } from '../web/layout.js';
import { Pages } from '../web/pages.js';
import { languageNames, type Language } from '../web/texts.js';

const languageCodes = Object.keys(languageNames) as Language[];

/** Language and colors, remembered in the session. `Pages` applies them. */
@Controller('preferences')
export class PreferencesController {
  constructor(private readonly pages: Pages) {}

  @Get()
  @HtmlPage()
  show(): Promise<string> {
    const { language, theme } = this.pages.preferences;
    const texts = this.pages.texts.preferences;
    return this.pages.render({
      place: 'preferences',
      title: texts.title,
      body: html` <p class="intro">${texts.intro}</p>
        <form method="post" class="card">
          <fieldset>
            <legend>${texts.language}</legend>
            ${languageCodes.map((code) => radio('language', code, html`<span lang="${code}">${languageNames[code]}</span>`, code === language))}
          </fieldset>
          <fieldset>
            <legend>${texts.theme}</legend>
            ${themes.map((name) => radio('theme', name, texts.themes[name], name === theme))}
          </fieldset>
          <button>${texts.save}</button>
        </form>`,
    });
  }

  @Post()
  @Redirect('/preferences', 303)
  save(@Body() form: Form): void {
    const language = languageCodes.find((code) => code === fieldOf(form, 'language'));
    const theme = themes.find((name) => name === fieldOf(form, 'theme'));
    if (!language || !theme) throw new BadRequestException();
    this.pages.preferences = { language, theme };
    this.pages.notify(this.pages.texts.preferences.saved);
  }
}

function radio(name: string, value: string, label: Html | string, checked: boolean): Html {
  return html`<label class="choice"
    ><input type="radio" name="${name}" value="${value}" ${checked && html`checked`} /> ${label}</label
  >`;
}
