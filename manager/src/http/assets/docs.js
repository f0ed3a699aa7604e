// Shows /openapi.json. Everything is put on the page as text, never as HTML.
'use strict';
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const METHODS = ['get', 'post', 'put', 'patch', 'delete'];
const anchor = (method, path) => `${method}-${path}`.replace(/[^a-z0-9]+/gi, '-');
const last = (reference) => reference.split('/').pop();

// A short name of a type; types of their own are links.
function type(schema) {
  if (!schema) return 'any';
  if (schema.$ref) return make('a', { href: `#type-${last(schema.$ref)}` }, last(schema.$ref));
  const choices = schema.oneOf || schema.anyOf;
  if (choices) {
    const named = choices.filter((choice) => choice.type !== 'null');
    const span = make('span');
    named.forEach((choice, index) => span.append(index ? ' or ' : '', type(choice)));
    if (named.length < choices.length) span.append(' or null');
    return span;
  }
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  const kinds = [].concat(schema.type ?? 'any');
  if (kinds.includes('array')) return make('span', {}, 'list of ', type(schema.items));
  if (kinds.includes('object') && typeof schema.additionalProperties === 'object')
    return make('span', {}, 'map to ', type(schema.additionalProperties));
  return kinds.join(' or ');
}

// Paragraphs, with `code` in them.
function prose(text) {
  const block = make('div');
  for (const paragraph of (text || '').split(/\n\s*\n/)) {
    const p = make('p');
    paragraph.split('`').forEach((part, index) => p.append(index % 2 ? make('code', {}, part) : part));
    block.append(p);
  }
  return block;
}

function rows(head, body) {
  const table = make('table');
  table.append(make('tr', {}, ...head.map((cell) => make('th', {}, cell))));
  for (const row of body) table.append(make('tr', {}, ...row.map((cell) => make('td', {}, cell))));
  return table;
}

function properties(schema, required = schema.required || []) {
  return rows(
    ['Field', 'Type', 'Meaning'],
    Object.entries(schema.properties || {}).map(([name, property]) => [
      make('span', {}, make('code', {}, name), required.includes(name) ? '' : make('span', { class: 'quiet' }, ' optional')),
      type(property),
      prose(property.description),
    ]),
  );
}

function call(method, path, operation) {
  const section = make('section', { id: anchor(method, path) });
  section.append(make('h3', {}, make('span', { class: 'method' }, method.toUpperCase()), make('code', {}, path)));
  section.append(prose(operation.summary), prose(operation.description));
  if (operation.parameters?.length) {
    section.append(make('h4', {}, 'Parameters'));
    section.append(rows(
      ['Name', 'Where', 'Type', 'Meaning'],
      operation.parameters.map((parameter) => [
        make('code', {}, parameter.name), parameter.in, type(parameter.schema), prose(parameter.description),
      ]),
    ));
  }
  const request = operation.requestBody?.content?.['application/json'];
  if (request) section.append(make('h4', {}, 'Body'), make('p', {}, type(request.schema)));
  section.append(make('h4', {}, 'Answers'));
  section.append(rows(
    ['Status', 'Body', 'Meaning'],
    Object.entries(operation.responses || {}).map(([status, answer]) => {
      const [kind, content] = Object.entries(answer.content || {})[0] || [];
      const body = content ? make('span', {}, type(content.schema), make('span', { class: 'quiet' }, ` ${kind}`)) : '';
      return [make('code', {}, status), body, prose(answer.description)];
    }),
  ));
  return section;
}

async function show() {
  const main = document.getElementById('main');
  const nav = document.getElementById('nav');
  const answer = await fetch('/openapi.json');
  if (!answer.ok) throw new Error(`the manager answered ${answer.status}`);
  const api = await answer.json();
  main.replaceChildren(make('h1', {}, `${api.info.title} ${api.info.version}`), prose(api.info.description));
  main.append(make('p', {}, make('a', { href: '/openapi.json' }, 'openapi.json')));
  const groups = new Map();
  for (const [path, item] of Object.entries(api.paths))
    for (const method of METHODS)
      if (item[method]) {
        const tag = item[method].tags?.[0] ?? 'other';
        if (!groups.has(tag)) groups.set(tag, []);
        groups.get(tag).push([method, path, item[method]]);
      }
  for (const [tag, calls] of groups) {
    nav.append(make('h2', {}, tag));
    main.append(make('h2', {}, tag));
    for (const [method, path, operation] of calls) {
      nav.append(make('a', { href: `#${anchor(method, path)}` }, `${method.toUpperCase()} ${path}`));
      main.append(call(method, path, operation));
    }
  }
  nav.append(make('h2', {}, 'types'));
  main.append(make('h2', {}, 'Types'));
  for (const [name, schema] of Object.entries(api.components?.schemas ?? {})) {
    nav.append(make('a', { href: `#type-${name}` }, name));
    const section = make('section', { id: `type-${name}` }, make('h3', {}, make('code', {}, name)), prose(schema.description));
    section.append(schema.properties ? properties(schema) : make('p', {}, type(schema)));
    main.append(section);
  }
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

show().catch((error) => {
  document.getElementById('main').replaceChildren(make('p', {}, `The description could not be shown: ${error.message}`));
});
