// Checks the generated boards against the types of the Grafana version that the SDK follows: each board and, by the kind
// of its panels, their options and field options. Types become a JSON schema in which no unknown key is allowed.
//
//   node check-schema.mjs
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import Ajv from 'ajv';
import { createGenerator } from 'ts-json-schema-generator';

const HERE = import.meta.dirname;
const PACKAGE = path.join(HERE, 'node_modules', 'grafana-schema-11');
const RAW = path.join(PACKAGE, 'dist', 'esm', 'raw');
const KINDS = { timeseries: 'TimeSeries', stat: 'Stat', bargauge: 'BarGauge', table: 'Table' };
const WITHOUT_FIELDS = ['stat', 'bargauge']; // kinds that have no field options of their own
const BOARDS = path.join(HERE, '..', 'generated');

/** The schema of one exported type; each has its own, since the kinds call different types by the same name. */
async function schema(name, source) {
  const folder = path.join(HERE, 'build', 'schema');
  await mkdir(folder, { recursive: true });
  const [root, tsconfig] = [path.join(folder, `${name}.ts`), path.join(folder, `${name}.json`)];
  const paths = { '@grafana/schema': [path.join(PACKAGE, 'dist', 'esm', 'index.d.mts')] };
  const compilerOptions = { paths, module: 'esnext', moduleResolution: 'bundler', target: 'esnext', skipLibCheck: true };
  await writeFile(root, source);
  await writeFile(tsconfig, JSON.stringify({ compilerOptions, files: [root] }));
  return createGenerator({ path: root, tsconfig, type: 'Checked', skipTypeCheck: true, additionalProperties: false })
    .createSchema('Checked');
}

const typesOf = (file, type) => `import type { ${type} } from '${path.join(RAW, file)}';\nexport type Checked = ${type};`;
const ofPanel = (kind) => `composable/${kind}/panelcfg/x/${KINDS[kind]}PanelCfg_types.gen`;

const { version } = JSON.parse(await readFile(path.join(PACKAGE, 'package.json'), 'utf-8'));
const ajv = new Ajv({ strict: false, allErrors: true });
const checks = { board: ajv.compile(await schema('board', typesOf('dashboard/x/dashboard_types.gen', 'Dashboard'))) };
for (const kind of Object.keys(KINDS)) {
  checks[`${kind} options`] = ajv.compile(await schema(`${kind}-options`, typesOf(ofPanel(kind), 'Options')));
  const fields = WITHOUT_FIELDS.includes(kind) ? 'export type Checked = {};' : typesOf(ofPanel(kind), 'FieldConfig');
  checks[`${kind} fields`] = ajv.compile(await schema(`${kind}-fields`, fields));
}
let faults = 0;

function check(type, value, place) {
  const valid = checks[type];
  if (!valid(value)) {
    faults += valid.errors.length;
    valid.errors.forEach((error) => console.error(`${place}${error.instancePath}: ${error.message}`, error.params));
  }
}

for (const file of (await readdir(BOARDS)).sort()) {
  const board = JSON.parse(await readFile(path.join(BOARDS, file), 'utf-8'));
  check('board', board, file);
  const panels = board.panels.filter((panel) => panel.type !== 'row');
  for (const panel of panels) {
    const { defaults, overrides } = panel.fieldConfig;
    const custom = overrides.flatMap((one) => one.properties).filter(({ id }) => id.startsWith('custom.'));
    const overridden = Object.fromEntries(custom.map(({ id, value }) => [id.replace('custom.', ''), value]));
    check(`${panel.type} options`, panel.options, `${file}, ${panel.title}, options`);
    check(`${panel.type} fields`, { ...defaults.custom, ...overridden }, `${file}, ${panel.title}, fields`);
  }
  console.log(`${file}: ${panels.length} panels against @grafana/schema ${version}`);
}
process.exitCode = faults ? 1 : 0;
