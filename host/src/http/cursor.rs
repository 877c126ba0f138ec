//! Where the next page of a list begins, as text that clients hand back unread.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::problem::Problem;

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
}
