// The names of the API reference, module by module. It is generated, so the list is what is there.
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { docs } from './repository.mjs';

const api = join(docs, 'api');

export function apiSidebar() {
  if (!existsSync(api)) return [];
  const pages = readdirSync(api, { recursive: true, encoding: 'utf8' }).filter(
    (file) => file.endsWith('.md') && file !== 'index.md',
  );
  const modules = pages.filter((page) => page.endsWith('/index.md')).map((page) => dirname(page));
  return modules.toSorted().map((module) => ({
    text: module,
    link: `/api/${module}/`,
    collapsed: module !== 'nest-visit',
    // Those of a kind, such as classes, are in a folder of the module.
    items: itemsOf(pages.filter((page) => dirname(dirname(page)) === module && !page.endsWith('/index.md'))),
  }));
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
