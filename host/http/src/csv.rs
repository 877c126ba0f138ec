//! CSV (RFC 4180) whose text fields spreadsheets do not run as formulas.

/// Prefixes text that a spreadsheet would run as a formula with an apostrophe.
pub fn text(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text
    }
}

/// Appends a line.
pub fn line(part: &mut Vec<u8>, fields: impl Iterator<Item = impl AsRef<str>>) {
    for (number, field) in fields.enumerate() {
        if number > 0 {
            part.push(b',');
        }
        let field = field.as_ref();
        if field.contains([',', '"', '\n', '\r']) {
            part.push(b'"');
            part.extend_from_slice(field.replace('"', "\"\"").as_bytes());
            part.push(b'"');
        } else {
            part.extend_from_slice(field.as_bytes());
        }
    }
    part.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_formulas_are_escaped() {
        for (field, expected) in [
            ("a,\"b\"\nc", "\"a,\"\"b\"\"\nc\"\r\n"),
            ("=1+1", "'=1+1\r\n"),
            ("@x", "'@x\r\n"),
            ("\t=1", "'\t=1\r\n"),
            ("-1", "'-1\r\n"),
            ("a=1", "a=1\r\n"),
            ("", "\r\n"),
        ] {
            let mut written = Vec::new();
            line(&mut written, [text(field.to_owned())].iter());
            assert_eq!(String::from_utf8(written).unwrap(), expected);
        }
    }
}
