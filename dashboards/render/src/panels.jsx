// One panel of a board, drawn by Grafana's own components.
import {
  FieldType, applyFieldOverrides, cacheFieldDisplayNames, getDisplayValueAlignmentFactors, getFieldDisplayValues, transformDataFrame,
} from '@grafana/data';
import { BarGauge, BigValue, TimeSeries, VizRepeater } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { lastValueFrom } from 'rxjs';
import { registryOf } from './registry';

const asIs = (text) => text;

/** Frames as the panel shows them: transformed, then with units, colours, thresholds and names. */
export async function prepare(panel, frames, theme, timeZone) {
  const context = { interpolate: asIs };
  const changed = await lastValueFrom(transformDataFrame(panel.transformations ?? [], frames, context));
  const dressed = applyFieldOverrides({
    data: changed,
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: registryOf(panel.fieldConfig),
    replaceVariables: asIs,
    theme,
    timeZone,
  });
  cacheFieldDisplayNames(dressed); // headings and colours go by these names
  return dressed;
}

function Graph({ panel, frames, width, height, range, timeZone }) {
  return (
    <TimeSeries
      frames={frames} structureRev={1} width={width} height={height} timeRange={range} timeZone={timeZone}
      legend={panel.options.legend} options={panel.options}
    />
  );
}

function displaysOf({ panel, frames, theme, timeZone, sparkline }) {
  const { reduceOptions } = panel.options;
  return getFieldDisplayValues({
    data: frames, fieldConfig: panel.fieldConfig, reduceOptions, replaceVariables: asIs, theme, timeZone, sparkline,
  });
}

function Stat(props) {
  const { panel, width, height, theme } = props;
  const { graphMode, colorMode, justifyMode, textMode, wideLayout } = panel.options;
  const values = displaysOf({ ...props, sparkline: graphMode === 'area' });
  return (
    <VizRepeater
      getValues={() => values} source={values} width={width} height={height} itemSpacing={3} autoGrid
      orientation={panel.options.orientation}
      renderValue={({ value, width: w, height: h, count }) => (
        <BigValue
          value={value.display} sparkline={value.sparkline} count={count} width={w} height={h} theme={theme}
          graphMode={graphMode} colorMode={colorMode} justifyMode={justifyMode} textMode={textMode}
          wideLayout={wideLayout} text={panel.options.text}
        />
      )}
    />
  );
}

function Bars(props) {
  const { panel, width, height, theme } = props;
  const { displayMode, valueMode, namePlacement, showUnfilled, orientation } = panel.options;
  const values = displaysOf({ ...props, sparkline: false });
  return (
    <VizRepeater
      getValues={() => values} source={values} width={width} height={height} itemSpacing={8} orientation={orientation}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      minVizWidth={panel.options.minVizWidth} minVizHeight={panel.options.minVizHeight}
      maxVizHeight={panel.options.maxVizHeight}
      renderValue={({ value, width: w, height: h, alignmentFactors, orientation: way, count }) => (
        <BarGauge
          value={value.display} field={value.field} display={value.view?.getFieldDisplayProcessor(value.colIndex)}
          width={w} height={h} theme={theme} orientation={way} displayMode={displayMode} itemSpacing={8}
          lcdCellWidth={8} showUnfilled={showUnfilled} alignmentFactors={count > 1 ? alignmentFactors : undefined}
          valueDisplayMode={valueMode} namePlacement={namePlacement}
        />
      )}
    />
  );
}

function Rows({ panel, frames, width, height, range }) {
  const [frame] = frames;
  return frame.fields.some((field) => field.type !== FieldType.time) ? (
    <TableNG
      data={frame} width={width} height={height} timeRange={range} fieldConfig={panel.fieldConfig}
      noHeader={!panel.options.showHeader} cellHeight={panel.options.cellHeight} sortBy={panel.options.sortBy}
      structureRev={1}
    />
  ) : null;
}

export const KINDS = { timeseries: Graph, stat: Stat, bargauge: Bars, table: Rows };
