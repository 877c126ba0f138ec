//! The plugin of `plugins/js-example` and `plugins/python-example` in Rust, for comparison.

use lantern_sdk::prelude::*;
use serde::Deserialize;

lantern_sdk::export!(Readings);

struct Readings;

impl Plugin for Readings {
    const SOURCES: Sources<Self> = &[Source::stream(
        "readings",
        "READINGS",
        &["reading.>"],
        project_reading,
    )];
    const WRITES: Writes = &[Reading::WRITE, Sensor::WRITE];
}

/// Readings of sensors.
#[derive(Deserialize, Table, Row)]
#[table(name = "rust_readings", primary_key = [sensor, at], retention_days = 30)]
#[row(on_conflict = ignore)]
struct Reading {
    #[column(entity)]
    sensor: String,
    #[column(time)]
    at: Timestamp,
    #[column(measure = "Cel")]
    celsius: f64,
    #[column(facet)]
    place: Option<String>,
    extra: Option<Json>,
}

/// Summary of each sensor.
#[derive(Table, Row)]
#[table(name = "rust_sensors", primary_key = [sensor])]
#[row(on_conflict = update(key = [sensor], max = [at], add = [readings]))]
struct Sensor {
    #[column(entity)]
    sensor: String,
    #[column(time)]
    at: Timestamp,
    readings: u32,
}

fn project_reading(message: &Message<'_>, rows: &mut Rows<Readings>) -> Result {
    let reading: Reading = message.json()?;
    if reading.celsius < -273.15 {
        let reason = format_args!("celsius: {} is below absolute zero", reading.celsius);
        return Err(Rejection::invalid(reason));
    }
    let sensor = reading.sensor.clone();
    rows.put(Sensor {
        sensor,
        at: reading.at,
        readings: 1,
    });
    rows.put(reading);
    Ok(())
}
