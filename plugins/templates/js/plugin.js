// Projects messages of the stream {{stream}} into the table {{table}}.

import { boolean, integer, json, plugin, real, stream, table, text, timestamp, write } from "./lantern.js";

const rowsOf = table(
  "{{table}}",
  {
{{columns}}
  },
  { doc: "{{doc}}" },
);
const one = write(rowsOf);

function handle(message, rows) {
  const event = message.json();
  rows.put(one, {
{{row}}
  });
}

export const projector = plugin({
  name: "{{name}}",
  version: "0.1.0",
  doc: "{{doc}}",
  sources: [stream("{{name}}", "{{stream}}", ["{{subject}}"], handle)],
  writes: [one],
});
