/** All that the pages say. English sets what there is; every other language has to have the same. */
const en = {
  layout: {
    site: 'nest-visit sample',
    menuLabel: 'Pages',
    nav: {
      home: 'Home',
      preferences: 'Preferences',
      visits: 'My visits',
      guestbook: 'Guestbook',
      withoutCookies: 'Without cookies',
      signIn: 'Sign in',
    },
    skipToContent: 'Skip to the content',
    signOut: 'Sign out',
    footer: 'All of this works without JavaScript. What this site knows about your visit is one row in its database.',
  },
  home: {
    title: 'Who am I to this server?',
    visit: 'Your visit',
    id: 'Public id',
    idHint: 'may be shown; the key is only in your cookie',
    known: 'Known',
    isNew: 'No: the visit begins with this page. Open it again, and you are known.',
    isKnown: 'Yes',
    begun: 'Began',
    ends: 'Ends',
    endsHint: 'unless it is used before',
    kept: 'Your browser keeps it',
    permanent: 'until it ends (“remember me”)',
    temporary: 'until it is closed',
    address: 'Address',
    browser: 'Browser',
    user: 'Signed in as',
    nobody: 'nobody',
    counter: 'A counter in your session',
    clicks: (count: number): string => (count === 1 ? 'click' : 'clicks'),
    addOne: 'Add one',
    reset: 'Start again at 0',
    opened: (times: number) =>
      `You have opened this page ${times === 1 ? 'once' : `${times} times`}. Each change is stored before its answer leaves.`,
    browsers: 'New visits since the server started',
    noBrowsers: 'None yet. Yours is being stored with this page: open it again.',
    browsersHint: 'Counted by a plugin of fifteen lines.',
    otherBrowser: 'Other',
  },
  preferences: {
    title: 'Preferences',
    intro: 'They are kept in your session and apply to every page, to nobody but you.',
    language: 'Language',
    theme: 'Colours',
    themes: { auto: 'As my system', light: 'Light', dark: 'Dark' },
    save: 'Save',
    saved: 'Your preferences are saved.',
  },
  signIn: {
    title: 'Sign in',
    name: 'Name',
    password: 'Password',
    remember: 'Remember me for 30 days',
    wrong: 'Name and password do not belong together. Nothing else has changed: your session is as it was.',
    tryWith: 'Two people to try it with',
    newKey:
      'Signing in gives your visit a new key: whoever knew the old one gets nowhere with it. The public id stays.',
    already: (name: string) => `You are signed in as ${name}. To be somebody else, sign out first.`,
    signedIn: (name: string) => `Hello, ${name}. Your visit has a new key now.`,
    signedOut: 'You are signed out. That visit has ended, and a new one has begun.',
  },
  visits: {
    title: 'My visits',
    intro: 'Every place where you are signed in. Ending a visit counts at once, on every server of this site.',
    current: 'This one',
    created: 'Began',
    accessed: 'Last used',
    address: 'Address',
    id: 'Public id',
    permanent: 'Remembered',
    end: 'End this visit',
    endOthers: 'End all others',
    none: 'You are signed in nowhere else. Try it: sign in with a second browser, or in a private window.',
    ended: 'The visit has ended.',
    othersEnded: (count: number) => (count === 1 ? 'One other visit has ended.' : `${count} other visits have ended.`),
  },
  guestbook: {
    title: 'Guestbook',
    intro: 'The last 20 messages, until the server stops. Your name is remembered in your session.',
    name: 'Your name',
    message: 'Your message',
    send: 'Write it into the book',
    thanks: (name: string) => `Thank you, ${name}. You see this once: open the page again, and it is gone.`,
    incomplete: 'Please give a name of up to 40 characters and a message of up to 500.',
    empty: 'Nobody has written anything yet.',
  },
  withoutCookies: {
    title: 'Without cookies',
    intro:
      'For browsers that refuse cookies, a page can put the key of the visit into its links and forms. This one does.',
    warning: 'The address of this page holds the key to your visit.',
    warningText:
      'Whoever gets it is you, as far as this server knows: do not share or bookmark it. It stays in the history ' +
      'of this browser. So keys in addresses are off unless an application asks for them, and this page does not ' +
      'offer them to people who are signed in.',
    visit: 'Public id of the visit',
    count: 'Counted in its session',
    addOne: 'Add one',
    follow: 'Open this page again',
    hint: 'The menu above carries no key. Without cookies it leads to a new visit each time.',
    signedIn: 'You are signed in, so this page gives no key away. Sign out to see how it works.',
  },
  problems: {
    400: { title: 'This request cannot be read', text: 'Something in it is not as it should be.' },
    401: { title: 'Please sign in', text: 'This page is for people who are signed in.' },
    403: {
      title: 'This form cannot be taken',
      text: 'It has been sent already, or has been open for too long, or comes from another site. Please open it again.',
    },
    404: { title: 'There is no such page', text: 'The address may be mistyped, or what was here is gone.' },
    409: {
      title: 'Your visit has changed meanwhile',
      text:
        'In another window you have signed in or out, or the visit has ended. Nothing was saved here. Please try ' +
        'it again.',
    },
    413: { title: 'That is too much', text: 'What you sent is larger than this site takes.' },
    500: { title: 'Something went wrong', text: 'It is our fault, not yours, and has been written down.' },
    503: {
      title: 'The database does not answer',
      text: 'You are still signed in if you were, and nothing is lost. Please try it again in a few seconds.',
    },
  },
  goHome: 'Go to the home page',
};

export type Texts = typeof en;

const de: Texts = {
  layout: {
    site: 'nest-visit-Beispiel',
    menuLabel: 'Seiten',
    nav: {
      home: 'Start',
      preferences: 'Einstellungen',
      visits: 'Meine Besuche',
      guestbook: 'Gästebuch',
      withoutCookies: 'Ohne Cookies',
      signIn: 'Anmelden',
    },
    skipToContent: 'Zum Inhalt springen',
    signOut: 'Abmelden',
    footer:
      'All das geht ohne JavaScript. Was diese Website über Ihren Besuch weiß, ist eine Zeile in ihrer Datenbank.',
  },
  home: {
    title: 'Wer bin ich für diesen Server?',
    visit: 'Ihr Besuch',
    id: 'Öffentliche Kennung',
    idHint: 'darf gezeigt werden; der Schlüssel steht nur in Ihrem Cookie',
    known: 'Bekannt',
    isNew: 'Nein: Der Besuch beginnt mit dieser Seite. Öffnen Sie sie noch einmal, dann sind Sie bekannt.',
    isKnown: 'Ja',
    begun: 'Begonnen',
    ends: 'Endet',
    endsHint: 'wenn er bis dahin nicht benutzt wird',
    kept: 'Ihr Browser behält ihn',
    permanent: 'bis er endet („Angemeldet bleiben“)',
    temporary: 'bis er geschlossen wird',
    address: 'Adresse',
    browser: 'Browser',
    user: 'Angemeldet als',
    nobody: 'niemand',
    counter: 'Ein Zähler in Ihrer Sitzung',
    clicks: (count) => (count === 1 ? 'Klick' : 'Klicks'),
    addOne: 'Eins mehr',
    reset: 'Wieder bei 0 anfangen',
    opened: (times) =>
      `Sie haben diese Seite ${times === 1 ? 'einmal' : `${times}-mal`} geöffnet. Jede Änderung ist gespeichert, bevor die Antwort abgeht.`,
    browsers: 'Neue Besuche seit dem Start des Servers',
    noBrowsers: 'Noch keine. Ihrer wird mit dieser Seite gespeichert: Öffnen Sie sie noch einmal.',
    browsersHint: 'Gezählt von einem Plugin mit fünfzehn Zeilen.',
    otherBrowser: 'Andere',
  },
  preferences: {
    title: 'Einstellungen',
    intro: 'Sie stehen in Ihrer Sitzung und gelten auf jeder Seite, nur für Sie.',
    language: 'Sprache',
    theme: 'Farben',
    themes: { auto: 'Wie mein System', light: 'Hell', dark: 'Dunkel' },
    save: 'Speichern',
    saved: 'Ihre Einstellungen sind gespeichert.',
  },
  signIn: {
    title: 'Anmelden',
    name: 'Name',
    password: 'Passwort',
    remember: '30 Tage angemeldet bleiben',
    wrong: 'Name und Passwort gehören nicht zusammen. Sonst hat sich nichts geändert: Ihre Sitzung ist, wie sie war.',
    tryWith: 'Zwei Menschen zum Ausprobieren',
    newKey:
      'Mit der Anmeldung bekommt Ihr Besuch einen neuen Schlüssel: Wer den alten kannte, kommt damit nicht weiter. ' +
      'Die öffentliche Kennung bleibt.',
    already: (name) => `Sie sind als ${name} angemeldet. Um jemand anders zu sein, melden Sie sich erst ab.`,
    signedIn: (name) => `Guten Tag, ${name}. Ihr Besuch hat jetzt einen neuen Schlüssel.`,
    signedOut: 'Sie sind abgemeldet. Jener Besuch ist zu Ende, und ein neuer hat begonnen.',
  },
  visits: {
    title: 'Meine Besuche',
    intro: 'Überall, wo Sie angemeldet sind. Einen Besuch zu beenden gilt sofort, auf jedem Server dieser Website.',
    current: 'Dieser hier',
    created: 'Begonnen',
    accessed: 'Zuletzt benutzt',
    address: 'Adresse',
    id: 'Öffentliche Kennung',
    permanent: 'Bleibt angemeldet',
    end: 'Diesen Besuch beenden',
    endOthers: 'Alle anderen beenden',
    none:
      'Sie sind sonst nirgends angemeldet. Probieren Sie es: mit einem zweiten Browser oder in einem privaten ' +
      'Fenster.',
    ended: 'Der Besuch ist beendet.',
    othersEnded: (count) => (count === 1 ? 'Ein anderer Besuch ist beendet.' : `${count} andere Besuche sind beendet.`),
  },
  guestbook: {
    title: 'Gästebuch',
    intro: 'Die letzten 20 Nachrichten, bis der Server endet. Ihren Namen merkt sich Ihre Sitzung.',
    name: 'Ihr Name',
    message: 'Ihre Nachricht',
    send: 'Ins Buch schreiben',
    thanks: (name) => `Danke, ${name}. Das sehen Sie einmal: Öffnen Sie die Seite noch einmal, dann ist es weg.`,
    incomplete: 'Bitte nennen Sie einen Namen mit bis zu 40 Zeichen und eine Nachricht mit bis zu 500.',
    empty: 'Noch hat niemand etwas geschrieben.',
  },
  withoutCookies: {
    title: 'Ohne Cookies',
    intro:
      'Für Browser, die Cookies ablehnen, kann eine Seite den Schlüssel des Besuchs in ihre Links und Formulare ' +
      'schreiben. Diese tut es.',
    warning: 'In der Adresse dieser Seite steht der Schlüssel zu Ihrem Besuch.',
    warningText:
      'Wer ihn bekommt, ist für diesen Server Sie: Geben Sie die Adresse nicht weiter, und setzen Sie kein ' +
      'Lesezeichen. Sie bleibt im Verlauf dieses Browsers. Darum sind Schlüssel in Adressen aus, solange eine ' +
      'Anwendung sie nicht verlangt, und diese Seite gibt Angemeldeten keinen.',
    visit: 'Öffentliche Kennung des Besuchs',
    count: 'In seiner Sitzung gezählt',
    addOne: 'Eins mehr',
    follow: 'Diese Seite noch einmal öffnen',
    hint: 'Das Menü oben trägt keinen Schlüssel. Ohne Cookies führt es jedes Mal zu einem neuen Besuch.',
    signedIn:
      'Sie sind angemeldet, darum gibt diese Seite keinen Schlüssel heraus. Melden Sie sich ab, um zu sehen, wie ' +
      'sie arbeitet.',
  },
  problems: {
    400: { title: 'Diese Anfrage ist nicht lesbar', text: 'Etwas darin ist nicht, wie es sein soll.' },
    401: { title: 'Bitte anmelden', text: 'Diese Seite ist für Angemeldete.' },
    403: {
      title: 'Dieses Formular gilt nicht',
      text:
        'Es wurde schon abgeschickt, war zu lange offen oder kommt von einer anderen Website. Bitte öffnen Sie es ' +
        'noch einmal.',
    },
    404: {
      title: 'Diese Seite gibt es nicht',
      text: 'Vielleicht ist die Adresse vertippt, oder was hier war, ist weg.',
    },
    409: {
      title: 'Ihr Besuch hat sich inzwischen geändert',
      text:
        'In einem anderen Fenster haben Sie sich an- oder abgemeldet, oder der Besuch ist zu Ende. Hier wurde ' +
        'nichts gespeichert. Bitte versuchen Sie es noch einmal.',
    },
    413: { title: 'Das ist zu viel', text: 'Was Sie geschickt haben, ist größer, als diese Website annimmt.' },
    500: { title: 'Etwas ist schiefgegangen', text: 'Es liegt an uns, nicht an Ihnen, und ist notiert.' },
    503: {
      title: 'Die Datenbank antwortet nicht',
      text:
        'Waren Sie angemeldet, sind Sie es noch, und nichts ist verloren. Bitte versuchen Sie es in ein paar ' +
        'Sekunden noch einmal.',
    },
  },
  goHome: 'Zur Startseite',
};

export const languages = { en, de };

export type Language = keyof typeof languages;

/** Each in its own language, for who cannot read the current one. */
export const languageNames: Readonly<Record<Language, string>> = { en: 'English', de: 'Deutsch' };
