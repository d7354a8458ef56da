// What Grafana's server and its Prometheus data source would do: fill in variables, query, make data frames.
import { FieldType, toDataFrame } from '@grafana/data';

const SCRAPE_SECONDS = 1;

/** Fill `$name`, `${name}` and Grafana's own intervals into a text. */
export function fill(text, variables, range) {
  const seconds = Math.ceil((range.to - range.from) / 1000);
  const step = stepOf(range);
  const known = {
    ...variables,
    __interval: `${step}s`,
    __rate_interval: `${Math.max(step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS)}s`,
    __range: `${seconds}s`,
    __range_s: `${seconds}`,
  };
  return text.replace(/\$\{(\w+)(?::\w+)?\}|\$(\w+)/g, (all, braced, bare) => known[braced ?? bare] ?? all);
}

function stepOf(range) {
  return Math.max(SCRAPE_SECONDS, Math.ceil((range.to - range.from) / 1000 / 600)); // about a point a pixel
}

async function ask(path, parameters) {
  const answer = await (await fetch(`${path}?${new URLSearchParams(parameters)}`)).json();
  if (answer.status !== 'success') {
    throw new Error(`${parameters.query}: ${answer.error}`);
  }
  return answer.data.result;
}

const number = (value) => (value === null ? null : value === '+Inf' ? Infinity : value === '-Inf' ? -Infinity : Number(value));

function legendOf(format, labels) {
  return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => labels[label] ?? '');
}

/** A point with no value wherever a step is missing, so that a curve breaks there, as it does in Grafana's panel. */
function withGaps(points, step) {
  return points.flatMap((point, place) => {
    const missing = place > 0 && point[0] - points[place - 1][0] > 1.5 * step;
    return missing ? [[points[place - 1][0] + step, null], point] : [point];
  });
}

function seriesFrame(target, one, points) {
  const config = target.legendFormat ? { displayNameFromDS: legendOf(target.legendFormat, one.metric) } : {};
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: points.map(([at]) => at * 1000), config: {} },
      { name: 'Value', type: FieldType.number, values: points.map(([, value]) => number(value)), labels: one.metric, config },
    ],
  });
}

function tableFrame(target, result) {
  const labels = [...new Set(result.flatMap((one) => Object.keys(one.metric)))].sort();
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: result.map((one) => one.value[0] * 1000), config: {} },
      ...labels.map((name) => ({
        name, type: FieldType.string, values: result.map((one) => one.metric[name] ?? ''), config: {},
      })),
      { name: `Value #${target.refId}`, type: FieldType.number, values: result.map((one) => number(one.value[1])), config: {} },
    ],
  });
}

/** The data frames of one query of a panel. */
export async function framesOf(target, variables, range) {
  const query = fill(target.expr, variables, range);
  const end = range.to / 1000;
  if (!target.instant) {
    const step = stepOf(range);
    const parameters = { query, start: range.from / 1000, end, step };
    return (await ask('/api/v1/query_range', parameters)).map((one) => seriesFrame(target, one, withGaps(one.values, step)));
  }
  const result = await ask('/api/v1/query', { query, time: end });
  return target.format === 'table'
    ? result.length ? [tableFrame(target, result)] : []
    : result.map((one) => seriesFrame(target, one, [one.value]));
}
