//! Cursors: opaque strings that name the start of the next page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use serde::{Deserialize, Serialize};

use super::problem::Problem;
use lantern_store::reader::{ArrivalPositions, Key, RowPosition};

/// A cursor of `list` after the record with this identifier. `list` names the records and their order, so that one list
/// rejects a cursor of another.
pub fn encode(list: &str, after: i64) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list} {after}"))
}

/// The identifier in a cursor of `list`.
pub fn decode(list: &str, cursor: &str) -> Result<i64, Problem> {
    let wrong = || Problem::bad_request("cursor: not a cursor of this list; start again without a cursor");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())?;
    let text = str::from_utf8(&bytes).map_err(|_| wrong())?;
    match text.rsplit_once(' ') {
        Some((name, after)) if name == list => after.parse().map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// A [`RowPosition`] as encoded in a cursor. Doubles are encoded by their bits, so they are exact.
#[derive(Serialize, Deserialize)]
struct EncodedPlace(i64, EncodedKey);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EncodedKey {
    Null,
    Integer(i64),
    Real(u64),
    Text(String),
    Stored,
}

/// A cursor of `list` after this place.
pub fn of_place(list: &str, place: &RowPosition) -> String {
    let key = match &place.key {
        Key::Null => EncodedKey::Null,
        Key::Integer(number) => EncodedKey::Integer(*number),
        Key::Real(number) => EncodedKey::Real(number.to_bits()),
        Key::Text(text) => EncodedKey::Text(text.clone()),
        Key::Stored => EncodedKey::Stored,
    };
    let place = serde_json::json!(EncodedPlace(place.row, key));
    URL_SAFE_NO_PAD.encode(format!("{list}\n{place}"))
}

/// The place in a cursor of `list`.
pub fn place(list: &str, cursor: &str) -> Result<RowPosition, Problem> {
    let wrong = || Problem::bad_request("cursor: not a cursor of this list; start again without a cursor");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())?;
    let text = str::from_utf8(&bytes).map_err(|_| wrong())?;
    let (name, place) = text.split_once('\n').ok_or_else(wrong)?;
    if name != list {
        return Err(wrong());
    }
    let EncodedPlace(row, key) = serde_json::from_str(place).map_err(|_| wrong())?;
    let key = match key {
        EncodedKey::Null => Key::Null,
        EncodedKey::Integer(number) => Key::Integer(number),
        // NaN has no order.
        EncodedKey::Real(bits) if f64::from_bits(bits).is_nan() => return Err(wrong()),
        EncodedKey::Real(bits) => Key::Real(f64::from_bits(bits)),
        EncodedKey::Text(text) => Key::Text(text),
        EncodedKey::Stored => Key::Stored,
    };
    Ok(RowPosition { key, row })
}

/// The resume position of a table tail.
pub fn of_places(table: &str, places: &ArrivalPositions) -> String {
    let each: Vec<String> = places
        .iter()
        .map(|(history, (sequence, row))| format!("{history}:{sequence}:{row}"))
        .collect();
    URL_SAFE_NO_PAD.encode(format!("tail {table}\n{}", each.join(",")))
}

/// Decodes a resume position that [`of_places`] encoded for the same table.
pub fn places(table: &str, cursor: &str) -> Result<ArrivalPositions, Problem> {
    let wrong = || Problem::bad_request("after: not an event id of this table; start again without it");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())?;
    let text = str::from_utf8(&bytes).map_err(|_| wrong())?;
    let list = format!("tail {table}\n");
    let each = text.strip_prefix(list.as_str()).ok_or_else(wrong)?;
    let place = |text: &str| {
        let mut numbers = text.split(':').map(|number| number.parse::<i64>().ok());
        let place = (numbers.next()??, (numbers.next()??, numbers.next()??));
        numbers.next().is_none().then_some(place)
    };
    let each = each.split(',').filter(|text| !text.is_empty());
    each.map(|text| place(text).ok_or_else(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_of_other_lists_are_rejected() {
        let cursor = encode("rows obs_events desc", -7);
        assert_eq!(decode("rows obs_events desc", &cursor).unwrap(), -7);
        for list in ["rows obs_events asc", "rows audit_log desc", "gaps"] {
            assert!(decode(list, &cursor).is_err(), "{list}");
        }
        for bad in [
            "",
            "!",
            "AAAA",
            "Z2Fwcw",
            &"A".repeat(100_000),
            &encode("gaps", 1)[1..],
        ] {
            assert!(decode("gaps", bad).is_err(), "{bad:.20}");
        }
    }

    #[test]
    fn resume_positions_of_other_tables_are_rejected() {
        let known: ArrivalPositions = [(1, (i64::MAX, 0)), (7, (-1, -1))].into();
        let cursor = of_places("things", &known);
        assert_eq!(places("things", &cursor).unwrap(), known);
        assert_eq!(
            places("things", &of_places("things", &ArrivalPositions::new())).unwrap(),
            ArrivalPositions::new()
        );
        let short = URL_SAFE_NO_PAD.encode("tail things\n1:2");
        for (table, bad) in [
            ("other", cursor.as_str()),
            ("things", "!"),
            ("things", ""),
            ("things", &short),
        ] {
            assert!(places(table, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn places_round_trip() {
        let list = "rows things desc:at 00";
        for key in [
            Key::Null,
            Key::Integer(i64::MIN),
            Key::Real(0.1 + 0.2),
            Key::Text("a\nb \u{202e} \"".to_owned()),
            Key::Stored,
        ] {
            let before = RowPosition { key, row: i64::MAX };
            assert_eq!(place(list, &of_place(list, &before)).unwrap(), before);
        }
        let cursor = of_place(
            list,
            &RowPosition {
                key: Key::Null,
                row: 1,
            },
        );
        assert!(place("rows things asc:at 00", &cursor).is_err());
        let nan = URL_SAFE_NO_PAD.encode(format!("{list}\n[1,{{\"real\":{}}}]", f64::NAN.to_bits()));
        for bad in [
            nan.as_str(),
            "",
            "!",
            &encode(list, 1),
            &cursor[1..],
            &cursor[..cursor.len() - 2],
        ] {
            assert!(place(list, bad).is_err(), "{bad:.40}");
        }
    }
}
