//! CSV (RFC 4180) whose text fields spreadsheets do not run as formulas.

use lantern_model::value::Value;

/// A value as a field; null is empty. Numbers are not text, so a negative one is unchanged.
pub fn field(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        value if value.as_bytes().is_some() => text(value.to_string()),
        number => number.to_string(),
    }
}

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
    fn values_are_fields() {
        for (value, expected) in [
            (Value::Null, ""),
            (Value::Integer(-1), "-1"),
            (Value::Text("-1".into()), "'-1"),
            (Value::Blob(vec![0xf8]), "'+A=="),
            (Value::Json("{\"a\":1}".into()), "{\"a\":1}"),
        ] {
            assert_eq!(field(&value), expected);
        }
    }

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
