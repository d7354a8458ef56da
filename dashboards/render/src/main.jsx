// A board as Grafana lays it out, from /board.json and live data; sets window.drawn when all panels are there.
import '@fontsource/inter/latin-400.css'; // Grafana measures texts in this font
import '@fontsource/inter/latin-500.css';
import { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import {
  ThemeContext, createTheme, dateTime, standardTransformers, standardTransformersRegistry,
} from '@grafana/data';
import { GlobalStyles, PanelChrome, PortalContainer } from '@grafana/ui';
import { factsOf } from './facts';
import { KINDS, prepare } from './panels';
import { framesOf } from './queries';

const ROW = 30;
const GAP = 8;
const theme = createTheme({ colors: { mode: new URLSearchParams(location.search).get('theme') ?? 'dark' } });
const timeZone = 'browser';
const TRANSFORMERS = ['mergeTransformer', 'organizeFieldsTransformer'];
standardTransformersRegistry.setInit(() => TRANSFORMERS.map((name) => {
  const transformer = standardTransformers[name];
  return { id: transformer.id, name, transformation: async () => transformer };
}));

async function load() {
  const { board, others, variables, range } = await (await fetch('/board.json')).json();
  const panels = await Promise.all(board.panels.filter((panel) => panel.type !== 'row').map(async (panel) => {
    const frames = (await Promise.all(panel.targets.map((target) => framesOf(target, variables, range)))).flat();
    return { panel, frames: await prepare(panel, frames, theme, timeZone), queried: frames.length };
  }));
  return { board, others, variables, range, panels };
}

function rangeOf(range) {
  const [from, to] = [dateTime(range.from), dateTime(range.to)];
  return { from, to, raw: { from, to } };
}

function Panel({ one, range, width }) {
  const { panel, frames, queried } = one;
  const { x, y, w, h } = panel.gridPos;
  const column = (width + GAP) / 24;
  const size = { width: w * column - GAP, height: h * (ROW + GAP) - GAP };
  const Kind = KINDS[panel.type];
  return (
    <section data-panel={panel.id} style={{ position: 'absolute', left: x * column, top: y * (ROW + GAP), ...size }}>
      <PanelChrome title={panel.title} description={panel.description} {...size}>
        {(innerWidth, innerHeight) => queried === 0
          ? <div style={{ padding: 16, opacity: 0.6, textAlign: 'center' }}>{panel.fieldConfig.defaults.noValue ?? 'No data'}</div>
          : <Kind panel={panel} frames={frames} width={innerWidth} height={innerHeight} range={range} theme={theme} timeZone={timeZone} />}
      </PanelChrome>
    </section>
  );
}

function Row({ panel, width }) {
  const top = panel.gridPos.y * (ROW + GAP);
  return <h2 style={{ position: 'absolute', top, width, fontSize: 16, fontWeight: 500, margin: 0, lineHeight: `${ROW}px` }}>{panel.title}</h2>;
}

function Board({ board, others, variables, range, panels }) {
  const width = window.innerWidth - 2 * GAP;
  const shown = board.templating.list.filter((one) => one.hide !== 2).map((one) => `${one.label}: ${(variables[one.name] ?? '').replace('.*', 'All')}`);
  const links = others.filter((title) => title !== board.title).map((title) => title.split(': ')[1]);
  useEffect(() => {
    const settle = setTimeout(() => { window.drawn = { title: board.title, panels: panels.map((one) => factsOf(one, theme)) }; }, 1500);
    return () => clearTimeout(settle);
  }, []);
  const rows = Math.max(...board.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  return (
    <main style={{ margin: GAP, color: theme.colors.text.primary }}>
      <header style={{ display: 'flex', gap: 16, alignItems: 'baseline', marginBottom: GAP, whiteSpace: 'nowrap' }}>
        <h1 style={{ fontSize: 18, margin: 0 }}>{board.title}</h1>
        <span>{shown.join('  ·  ')}</span>
        <span style={{ marginLeft: 'auto' }}>{links.join('  |  ')}</span>
      </header>
      <div style={{ position: 'relative', height: rows * (ROW + GAP) }}>
        {board.panels.map((panel) => panel.type === 'row' ? <Row key={panel.id ?? panel.title} panel={panel} width={width} /> : null)}
        {panels.map((one) => <Panel key={one.panel.id} one={one} range={rangeOf(range)} width={width} />)}
      </div>
    </main>
  );
}

function App() {
  const [loaded, setLoaded] = useState(null);
  useEffect(() => { load().then(setLoaded, (error) => { window.failed = error.stack; }); }, []);
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <PortalContainer />
      {loaded && <Board {...loaded} />}
    </ThemeContext.Provider>
  );
}

window.addEventListener('error', (event) => { window.failed = event.error?.stack ?? event.message; });
document.body.style.margin = 0;
document.body.style.background = theme.colors.background.canvas;
Promise.all(['400', '500'].map((weight) => document.fonts.load(`${weight} 14px Inter`))).then(
  () => createRoot(document.getElementById('root')).render(<App />),
);
