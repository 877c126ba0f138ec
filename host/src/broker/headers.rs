//! Message headers as Lantern keeps them: name and value pairs, sorted by name, values in the order sent. Owns the
//! reading of header bytes that the library cannot read.

use async_nats::HeaderMap;

/// The headers that the library has read.
pub(super) fn from_map(map: &HeaderMap) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = map
        .iter()
        .flat_map(|(name, values)| {
            values
                .iter()
                .map(move |value| (name.to_string(), value.as_str().to_owned()))
        })
        .collect();
    // Stable, so that the values of one name keep their order.
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers
}

/// The headers in the bytes that a publisher sent, whatever they are. Bytes that are not UTF-8 become U+FFFD; a
/// line without a colon is a name without a value. The broker stores anything that ends in an empty line.
pub(super) fn from_bytes(bytes: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(bytes);
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in text.split("\r\n").skip(1).filter(|line| !line.is_empty()) {
        match (headers.last_mut(), line.split_once(':')) {
            (Some((_, value)), _) if line.starts_with([' ', '\t']) => {
                value.push_str(line.trim_end());
            }
            (_, Some((name, value))) => headers.push((name.to_owned(), value.trim().to_owned())),
            (_, None) => headers.push((line.to_owned(), String::new())),
        }
    }
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_header_bytes_become_text() {
        let headers =
            from_bytes(b"NATS/1.0\r\nB: 2\r\nA: \xff\r\nB:1\r\nnocolon\r\nBad Name:x: y\r\n more\r\n\r\n");
        let pairs: Vec<(&str, &str)> = headers.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("A", "\u{fffd}"),
                ("B", "2"),
                ("B", "1"),
                ("Bad Name", "x: y more"),
                ("nocolon", "")
            ]
        );
        assert!(from_bytes(b"").is_empty());
    }

    #[test]
    fn a_map_is_sorted_and_keeps_the_order_of_values() {
        let mut map = HeaderMap::new();
        for (name, value) in [("b", "2"), ("b", "1"), ("a", "x")] {
            map.append(name, value);
        }
        let expected = [("a", "x"), ("b", "2"), ("b", "1")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(from_map(&map), expected);
    }
}
