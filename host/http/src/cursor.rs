//! Where the next page of a list begins, as text that clients hand back unread.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use serde::{Deserialize, Serialize};

use super::problem::Problem;
use lantern_store::reader::{Key, Place, Places};

/// A cursor of `list`, after the record with this number. `list` names what is listed and in which order, so
/// that a cursor of one list is refused by another.
pub fn encode(list: &str, after: i64) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list} {after}"))
}

/// The number in a cursor of `list`.
pub fn decode(list: &str, cursor: &str) -> Result<i64, Problem> {
    let wrong = || Problem::bad_request("the cursor does not belong to this list; begin without one");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())?;
    let text = str::from_utf8(&bytes).map_err(|_| wrong())?;
    match text.rsplit_once(' ') {
        Some((its_list, after)) if its_list == list => after.parse().map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// A [`Place`] as a cursor holds it. Numbers are exact: a double stands there by its bits.
#[derive(Serialize, Deserialize)]
struct Written(i64, WrittenKey);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenKey {
    Null,
    Integer(i64),
    Real(u64),
    Text(String),
    Stored,
}

/// A cursor of `list`, behind this place.
pub fn of_place(list: &str, place: &Place) -> String {
    let key = match &place.key {
        Key::Null => WrittenKey::Null,
        Key::Integer(number) => WrittenKey::Integer(*number),
        Key::Real(number) => WrittenKey::Real(number.to_bits()),
        Key::Text(text) => WrittenKey::Text(text.clone()),
        Key::Stored => WrittenKey::Stored,
    };
    let place = serde_json::json!(Written(place.row, key));
    URL_SAFE_NO_PAD.encode(format!("{list}\n{place}"))
}

/// The place in a cursor of `list`.
pub fn place(list: &str, cursor: &str) -> Result<Place, Problem> {
    let wrong = || Problem::bad_request("the cursor does not belong to this list; begin without one");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| wrong())?;
    let text = str::from_utf8(&bytes).map_err(|_| wrong())?;
    let (its_list, place) = text.split_once('\n').ok_or_else(wrong)?;
    if its_list != list {
        return Err(wrong());
    }
    let Written(row, key) = serde_json::from_str(place).map_err(|_| wrong())?;
    let key = match key {
        WrittenKey::Null => Key::Null,
        WrittenKey::Integer(number) => Key::Integer(number),
        // Nothing comes before or after what is not a number.
        WrittenKey::Real(bits) if f64::from_bits(bits).is_nan() => return Err(wrong()),
        WrittenKey::Real(bits) => Key::Real(f64::from_bits(bits)),
        WrittenKey::Text(text) => Key::Text(text),
        WrittenKey::Stored => Key::Stored,
    };
    Ok(Place { key, row })
}

/// Where somebody who follows a table may go on.
pub fn of_places(table: &str, places: &Places) -> String {
    let each: Vec<String> = places
        .iter()
        .map(|(history, (sequence, row))| format!("{history}:{sequence}:{row}"))
        .collect();
    URL_SAFE_NO_PAD.encode(format!("tail {table}\n{}", each.join(",")))
}

/// The places in what [`of_places`] has made for the same table.
pub fn places(table: &str, cursor: &str) -> Result<Places, Problem> {
    let wrong = || Problem::bad_request("after: this is no place of this table's tail; begin without one");
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
    fn a_cursor_belongs_to_its_list() {
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
    fn a_place_of_a_tail_belongs_to_its_table() {
        let known: Places = [(1, (i64::MAX, 0)), (7, (-1, -1))].into();
        let cursor = of_places("things", &known);
        assert_eq!(places("things", &cursor).unwrap(), known);
        assert_eq!(
            places("things", &of_places("things", &Places::new())).unwrap(),
            Places::new()
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
    fn a_place_comes_back_as_it_was() {
        let list = "rows things desc:at 00";
        for key in [
            Key::Null,
            Key::Integer(i64::MIN),
            Key::Real(0.1 + 0.2),
            Key::Text("a\nb \u{202e} \"".to_owned()),
            Key::Stored,
        ] {
            let before = Place { key, row: i64::MAX };
            assert_eq!(place(list, &of_place(list, &before)).unwrap(), before);
        }
        let cursor = of_place(
            list,
            &Place {
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
