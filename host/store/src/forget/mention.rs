//! Whether a dead letter mentions a value. Pure.

/// How a dead letter mentions a value of a column. Text counts wherever it stands as whole words; other values only in
/// a member of a JSON payload that has the name of the column, because a number alone means nothing.
pub(super) struct Mention<'a> {
    column: &'a str,
    value: &'a str,
    /// The text, and how JSON writes it where that differs.
    words: Vec<String>,
    has_members: bool,
}

impl<'a> Mention<'a> {
    pub(super) fn new(column: &'a str, value: &'a str, has_text: bool, has_members: bool) -> Self {
        let mut words = Vec::new();
        if has_text && !value.is_empty() {
            words.push(value.to_owned());
            let quoted = serde_json::Value::from(value).to_string();
            let escaped = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            words.extend(escaped.filter(|escaped| *escaped != value).map(str::to_owned));
        }
        Self {
            column,
            value,
            words,
            has_members,
        }
    }

    pub(super) fn is_in(&self, texts: &[&[u8]], payload: &[u8]) -> bool {
        let mut all = texts.iter().copied().chain([payload]);
        if all.any(|text| self.words.iter().any(|word| has_word(text, word.as_bytes()))) {
            return true;
        }
        self.has_members && serde_json::from_slice(payload).is_ok_and(|document| self.is_member_of(&document))
    }

    fn is_member_of(&self, document: &serde_json::Value) -> bool {
        use serde_json::Value::{Array, Object};
        match document {
            Object(members) => members.iter().any(|(name, member)| {
                (name == self.column && self.is_value(member)) || self.is_member_of(member)
            }),
            Array(members) => members.iter().any(|member| self.is_member_of(member)),
            _ => false,
        }
    }

    fn is_value(&self, member: &serde_json::Value) -> bool {
        match member {
            serde_json::Value::String(text) => text == self.value,
            serde_json::Value::Number(number) => {
                number.to_string() == self.value
                    || self
                        .value
                        .parse()
                        .is_ok_and(|value: f64| Some(value) == number.as_f64())
            }
            serde_json::Value::Bool(yes) => yes.to_string() == self.value,
            _ => false,
        }
    }
}

/// Whether a text stands in another one, not as a part of a longer word or number.
fn has_word(text: &[u8], word: &[u8]) -> bool {
    let is_part =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii());
    memchr::memmem::find_iter(text, word).any(|at| {
        let before = at.checked_sub(1).and_then(|at| text.get(at));
        !is_part(before) && !is_part(text.get(at + word.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_mentioned_as_whole_words_and_other_values_by_their_member() {
        let mentions = |column, value, text, members, payload: &str| {
            Mention::new(column, value, text, members)
                .is_in(&[b"orders.new", b"[]", b"no"], payload.as_bytes())
        };
        for (column, value, text, members, payload, expected) in [
            ("email", "a@b.de", true, false, r#"{"x":"a@b.de"}"#, true),
            ("email", "a@b.de", true, false, "rubbish a@b.de;", true),
            ("email", "a@b.de", true, false, "rubbish xa@b.de", false),
            ("email", "a@b.de", true, false, "a@b.des", false),
            ("name", "ann", true, false, "anna ann", true),
            ("name", "a \"b\"", true, false, r#"{"name":"a \"b\""}"#, true),
            ("name", "orders", true, false, "", true),
            ("id", "7", false, true, r#"{"qty":7}"#, false),
            ("id", "7", false, true, r#"{"who":[{"id":7}]}"#, true),
            ("id", "7", false, true, r#"{"id":"7"}"#, true),
            ("id", "7", false, true, r#"{"id":70}"#, false),
            ("id", "7", false, true, "id=7", false),
            ("ok", "true", false, true, r#"{"ok":true}"#, true),
            ("name", "", true, false, "x", false),
        ] {
            assert_eq!(
                mentions(column, value, text, members, payload),
                expected,
                "{column}={value} in {payload}"
            );
        }
    }
}
