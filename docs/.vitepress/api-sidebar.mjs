// The names of the API reference. It is generated, so the list is what is there. A page lists all modules, and the names
// of its own one: each page has its sidebar in its HTML.
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { docs } from './repository.mjs';

const api = join(docs, 'api');

/** `{ '/api/nest-visit/redis/': [ … ] }`, and one for the start page. */
export function apiSidebars() {
  if (!existsSync(api)) return {};
  const pages = readdirSync(api, { recursive: true, encoding: 'utf8' }).filter(
    (file) => file.endsWith('.md') && file !== 'index.md',
  );
  const modules = pages.filter((page) => page.endsWith('/index.md')).map((page) => dirname(page));
  const sidebarWith = (current) =>
    modules.toSorted().map((module) => ({
      text: module,
      link: `/api/${module}/`,
      // Those of a kind, such as classes, are in a folder of the module.
      items:
        module === current
          ? itemsOf(pages.filter((page) => dirname(dirname(page)) === module && !page.endsWith('/index.md')))
          : [],
    }));
  return Object.fromEntries([
    ['/api/', sidebarWith(undefined)],
    ...modules.map((module) => [`/api/${module}/`, sidebarWith(module)]),
  ]);
}

function itemsOf(pages) {
  const nameOf = (page) => page.split('/').at(-1).slice(0, -'.md'.length);
  const names = pages.map(nameOf);
  const items = pages.map((page) => {
    const name = nameOf(page);
    // A decorator and the type of what it gives have one name.
    const isType = page.includes('/type-aliases/') && names.indexOf(name) !== names.lastIndexOf(name);
    return { text: isType ? `${name} (type)` : name, link: `/api/${page.slice(0, -'.md'.length)}` };
  });
  return items.toSorted((one, other) => one.text.localeCompare(other.text));
}
