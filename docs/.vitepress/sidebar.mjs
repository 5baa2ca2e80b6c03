// The order of the pages: what is needed first comes first. The list of llms.txt is made from it, too.
const page = (text, link) => ({ text, link });

export const sidebar = [
  {
    text: 'Start',
    items: [
      page('What it is, and what it is not', '/'),
      page('The first ten minutes', '/first-steps'),
      page('Concepts on one page', '/concepts'),
    ],
  },
  {
    text: 'Use',
    items: [
      page('The session', '/session'),
      page('Visits in handlers', '/handlers'),
      page('Signing in', '/identity'),
      page('Who is signed in where', '/identity#i-want-to-end-visits'),
      page('Guards', '/identity#i-want-to-protect-handlers'),
      page('Requests across sites', '/csrf'),
      page('GraphQL', '/graphql'),
      page('WebSockets', '/websockets'),
      page('Native apps', '/native-apps'),
      page('Passport and other libraries', '/other-libraries'),
      page('Cleaning up', '/cleaning-up'),
      page('Testing your application', '/testing'),
      page('Recipes', '/recipes'),
      page('Coming from another library', '/coming-from'),
    ],
  },
  {
    text: 'Stores',
    items: [
      page('Where visits are kept', '/stores'),
      page('TypeORM (the default)', '/store-typeorm'),
      page('Prisma', '/store-prisma'),
      page('Kysely', '/store-kysely'),
      page('Drizzle', '/store-drizzle'),
      page('Redis, Valkey', '/store-redis'),
      page('Memory', '/store-memory'),
      page('Keyv: a file, memcached', '/store-keyv'),
      page('Sealed cookies', '/store-sealed-cookie'),
      page('Moving to another store', '/stores#moving-to-another-store'),
      page('Encryption', '/encryption'),
      page('Writing a store', '/writing-a-store'),
    ],
  },
  {
    text: 'In production',
    items: [
      page('Production checklist', '/production-checklist'),
      page('Operations', '/operations'),
      page('The command line', '/command-line'),
      page('Upgrading', '/upgrading'),
      page('Compatibility', '/compatibility'),
      page('Performance', '/performance'),
      page('Benchmarks', '/benchmarks'),
      page('Security', '/security'),
      page('Guarantees', '/guarantees'),
    ],
  },
  {
    text: 'When something is wrong',
    items: [
      page('Troubleshooting by symptom', '/troubleshooting'),
      page('What each error code means', '/error-codes'),
      page('Errors', '/errors'),
    ],
  },
  {
    text: 'Reference',
    items: [page('Options', '/options'), page('Types', '/types'), page('API', '/api/')],
  },
];
