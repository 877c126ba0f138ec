"""Projects readings of sensors into a table of readings, and the newest reading per sensor into a table of sensors."""

from lantern import Reject, Table, integer, json, projector, real, stream, text, timestamp, update

readings = Table(
    "python_readings",
    {
        "sensor": text(role="entity"),
        "at": timestamp(role="time"),
        "celsius": real(role="measure", unit="Cel"),
        "place": text(role="facet", nullable=True),
        "extra": json(nullable=True),
    },
    doc="Readings of sensors.",
    primary_key=["sensor", "at"],
    retention_days=30,
)
sensors = Table(
    "python_sensors",
    {"sensor": text(role="entity"), "at": timestamp(role="time"), "readings": integer()},
    doc="Summary of each sensor.",
    primary_key=["sensor"],
)

reading = readings.write(on_conflict="ignore")
sensor = sensors.write(on_conflict=update(key=["sensor"], max=["at"], add=["readings"]))


def handle(message, rows):
    event = message.json()
    if event["celsius"] < -273.15:
        raise Reject("invalid", f"celsius: {event['celsius']} is below absolute zero")
    rows.put(reading, event)
    rows.put(sensor, {"sensor": event["sensor"], "at": event["at"], "readings": 1})


Projector = projector(
    "python-example",
    "0.1.0",
    doc="Readings of sensors, projected by a plugin in Python.",
    sources=[stream("readings", "READINGS", ["reading.>"], handle)],
    writes=[reading, sensor],
)
