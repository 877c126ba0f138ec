// Projects readings of sensors into a table of readings, and the newest reading per sensor into a table of sensors.

import { integer, json, plugin, real, reject, stream, table, text, timestamp, write } from "../templates/js/lantern.js";

const readings = table(
  "js_readings",
  {
    sensor: text({ role: "entity" }),
    at: timestamp({ role: "time" }),
    celsius: real({ role: "measure", unit: "Cel" }),
    place: text({ role: "facet", nullable: true }),
    extra: json({ nullable: true }),
  },
  { doc: "Readings of sensors.", primaryKey: ["sensor", "at"], retentionDays: 30 },
);
const sensors = table(
  "js_sensors",
  { sensor: text({ role: "entity" }), at: timestamp({ role: "time" }), readings: integer() },
  { doc: "Summary of each sensor.", primaryKey: ["sensor"] },
);

const reading = write(readings, { onConflict: "ignore" });
const sensor = write(sensors, { onConflict: { key: ["sensor"], max: ["at"], add: ["readings"] } });

function handle(message, rows) {
  const event = message.json();
  if (event.celsius < -273.15) reject("invalid", `celsius: ${event.celsius} is below absolute zero`);
  rows.put(reading, event);
  rows.put(sensor, { sensor: event.sensor, at: event.at, readings: 1 });
}

export const projector = plugin({
  name: "js-example",
  version: "0.1.0",
  doc: "Readings of sensors, projected by a plugin in JavaScript.",
  sources: [stream("readings", "READINGS", ["reading.>"], handle)],
  writes: [reading, sensor],
});
