// Draws every board with Grafana's own React components in headless Chromium, from a live Prometheus.
//
//   node draw.mjs --prometheus http://127.0.0.1:9090 --run NAME --from MS --to MS --out DIR [--theme dark]
//
// Writes DIR/board-NAME-WIDTH.png, and DIR/boards.json: of each panel its type, series, units, colours and texts.
// Fails if the page reports an error, or if a panel that was given data does not show them with their units and colours,
// or is cut off at the page's edge; names the panels that got no data.
import { createReadStream } from 'node:fs';
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const HERE = import.meta.dirname;
const WIDTHS = [1280, 1920];
const TYPES = { '.js': 'text/javascript', '.css': 'text/css', '.html': 'text/html', '.json': 'application/json' };
const PAGE = '<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/main.css"><div id="root"></div>'
  + '<script src="/main.js"></script>';

const { values: options } = parseArgs({
  options: {
    prometheus: { type: 'string', default: 'http://127.0.0.1:9090' },
    run: { type: 'string' },
    from: { type: 'string' },
    to: { type: 'string' },
    out: { type: 'string', default: 'build/drawn' },
    theme: { type: 'string', default: 'dark' },
    chromium: { type: 'string', default: '/usr/bin/chromium' },
  },
});

const range = { from: Number(options.from), to: Number(options.to ?? Date.now()) };
if (!options.run || !(range.from < range.to)) {
  throw new Error('--run and --from (milliseconds since 1970, before --to) are needed');
}
const everything = '.*';
const variables = {
  source: 'Prometheus', run: options.run, engine: everything, policy: everything, network: everything, party: everything,
};

/** Serves the page, the board that is drawn now, and Prometheus' answers. */
function serve(state) {
  return http.createServer(async (request, response) => {
    const url = new URL(request.url, 'http://here');
    if (url.pathname.startsWith('/api/')) {
      const answer = await fetch(options.prometheus + request.url);
      response.writeHead(answer.status, { 'content-type': 'application/json' });
      response.end(await answer.text());
    } else if (url.pathname === '/board.json') {
      response.end(JSON.stringify({ board: state.board, others: state.others, variables, range }));
    } else if (url.pathname === '/') {
      response.writeHead(200, { 'content-type': 'text/html' });
      response.end(PAGE);
    } else {
      const file = createReadStream(path.join(HERE, 'build', path.basename(url.pathname)));
      response.writeHead(200, { 'content-type': TYPES[path.extname(url.pathname)] ?? 'application/octet-stream' });
      file.on('error', () => response.end()).pipe(response);
    }
  });
}

async function draw(browser, address, name, width) {
  const page = await browser.newPage({ viewport: { width, height: 1000 } });
  await page.goto(`${address}/?theme=${options.theme}`);
  await page.waitForFunction(() => window.drawn || window.failed, null, { timeout: 60_000 });
  const { drawn, failed } = await page.evaluate(() => ({ drawn: window.drawn, failed: window.failed }));
  if (failed) {
    throw new Error(`${name} at ${width}: ${failed}`);
  }
  drawn.cut = await page.evaluate(() => [...document.querySelectorAll('section')]
    .filter((one) => one.getBoundingClientRect().right > window.innerWidth).map((one) => one.dataset.panel));
  await page.screenshot({ path: path.join(options.out, `board-${name}-${width}.png`), fullPage: true });
  await page.close();
  return drawn;
}

/** Panels of one drawing that are not as they should be, in words. */
function faultsOf({ panels, cut }) {
  const given = panels.filter(({ queried }) => queried > 0);
  return [
    ...given.filter(({ drawn }) => !drawn).map(({ title }) => `${title} does not show its numbers`),
    ...given.filter(({ colored }) => !colored).map(({ title }) => `${title} lacks the colour of a series`),
    ...cut.map((id) => `panel ${id} is cut off`),
  ];
}

const folder = path.join(HERE, '..', 'generated');
const names = (await readdir(folder)).map((file) => path.basename(file, '.json')).sort();
const boards = Object.fromEntries(await Promise.all(names.map(async (name) => (
  [name, JSON.parse(await readFile(path.join(folder, `${name}.json`), 'utf-8'))]
))));
await mkdir(options.out, { recursive: true });
const state = { board: null, others: Object.values(boards).map((board) => board.title) };
const server = serve(state).listen(0, '127.0.0.1');
const browser = await chromium.launch({ executablePath: options.chromium, args: ['--no-sandbox'] });
try {
  const found = {};
  for (const name of names) {
    state.board = boards[name];
    for (const width of WIDTHS) {
      found[name] = await draw(browser, `http://127.0.0.1:${server.address().port}`, name, width);
      const empty = found[name].panels.filter(({ queried }) => queried === 0).map(({ title }) => title);
      console.log(`${name} at ${width}: ${found[name].panels.length} panels; no data: ${empty.join(', ') || 'none'}`);
      faultsOf(found[name]).forEach((fault) => { process.exitCode = 1; console.error(`  ${fault}`); });
    }
  }
  await writeFile(path.join(options.out, 'boards.json'), `${JSON.stringify(found, null, 2)}\n`);
} finally {
  await browser.close();
  server.close();
}
