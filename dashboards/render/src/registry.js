// The field options that a panel of a board may set, each with Grafana's own rule for an override of it.
import {
  FieldConfigOptionsRegistry,
  booleanOverrideProcessor,
  displayNameOverrideProcessor,
  identityOverrideProcessor,
  numberOverrideProcessor,
  stringOverrideProcessor,
  thresholdsOverrideProcessor,
  unitOverrideProcessor,
  valueMappingsOverrideProcessor,
} from '@grafana/data';

const STANDARD = {
  displayName: displayNameOverrideProcessor,
  unit: unitOverrideProcessor,
  min: numberOverrideProcessor,
  max: numberOverrideProcessor,
  decimals: numberOverrideProcessor,
  noValue: stringOverrideProcessor,
  thresholds: thresholdsOverrideProcessor,
  mappings: valueMappingsOverrideProcessor,
  color: identityOverrideProcessor,
  fieldMinMax: booleanOverrideProcessor,
  links: identityOverrideProcessor,
};

function option(id, process, isCustom) {
  return { id, path: isCustom ? id.replace(/^custom\./, '') : id, name: id, isCustom, process, shouldApply: () => true };
}

/** The registry for one panel: the standard options, and every `custom` one that its overrides name. */
export function registryOf(fieldConfig) {
  const named = (fieldConfig.overrides ?? []).flatMap((one) => one.properties.map((property) => property.id));
  const set = Object.keys(fieldConfig.defaults?.custom ?? {}).map((key) => `custom.${key}`);
  const custom = new Set([...set, ...named].filter((id) => id.startsWith('custom.')));
  return new FieldConfigOptionsRegistry(() => [
    ...Object.entries(STANDARD).map(([id, process]) => option(id, process, false)),
    ...[...custom].map((id) => option(id, identityOverrideProcessor, true)),
  ]);
}
