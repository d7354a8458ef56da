// What a drawn panel really shows: that its numbers, with their units and colours, are on the page.
import { getDisplayProcessor } from '@grafana/data';

const bare = (text) => text.replace(/\s+/g, '');

function rgb(hex) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgb(${red}, ${green}, ${blue})`;
}

/** Whether anything inside an element has this colour: a letter, a bar or the mark of a curve. */
function has(element, color) {
  return [...element.querySelectorAll('*')].some((one) => {
    const style = getComputedStyle(one);
    return [style.color, style.backgroundColor, style.borderRightColor].includes(rgb(color));
  });
}

/** Whether a canvas inside an element has been painted. */
function painted(element) {
  return [...element.querySelectorAll('canvas')].some((canvas) => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return data.some((value, place) => place % 4 === 3 && value > 0);
  });
}

/** The facts of one panel: its series as Grafana formats them, and whether they were found on the page. */
export function factsOf({ panel, frames, queried }, theme) {
  const section = document.querySelector(`[data-panel="${panel.id}"]`);
  const fields = frames.flatMap((frame) => frame.fields).filter((field) => field.type === 'number');
  const series = fields.map((field) => {
    const value = field.values.findLast((one) => Number.isFinite(one));
    const { prefix = '', text, suffix = '', color } = (field.display ?? getDisplayProcessor({ field, theme }))(value);
    return { unit: field.config.unit, color, text: `${prefix}${text}${suffix}` };
  });
  const written = bare(section.innerText);
  const curve = panel.type === 'timeseries';
  return {
    id: panel.id,
    title: panel.title,
    type: panel.type,
    queried,
    series,
    drawn: curve ? painted(section) : series.every(({ text }) => written.includes(bare(text))),
    colored: panel.type === 'table' || series.every(({ color }) => has(section, color)),
  };
}
