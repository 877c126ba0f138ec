"""Projects messages of the stream {{stream}} into the table {{table}}."""

from lantern import Table, boolean, integer, json, projector, real, stream, text, timestamp

rows_of = Table(
    "{{table}}",
    {
{{columns}}
    },
    doc="{{doc}}",
)
one = rows_of.write()


def handle(message, rows):
    event = message.json()
    rows.put(one, {
{{row}}
    })


Projector = projector(
    "{{name}}",
    "0.1.0",
    doc="{{doc}}",
    sources=[stream("{{name}}", "{{stream}}", ["{{subject}}"], handle)],
    writes=[one],
)
