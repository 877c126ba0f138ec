//! Reads values of a JSON document by path, for plugins that need a few fields of a large document.

use std::fmt;

use serde::de::value::UnitDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use crate::{Rejection, Result};

/// A JSON document, or a part of one, whose values are read by path: names separated by dots, and indexes of arrays.
///
/// Each read parses the document again without building other values. For a few fields of a large document this is faster and
/// shorter than a struct. For more fields, use a struct with [`Message::json`](crate::Message::json).
///
/// ```
/// use lantern_sdk::{Json, Message};
///
/// let payload = br#"{"repository": {"full_name": "octocat/Hello-World"}, "commits": [{"id": "7fd1a60b"}, {"id": 3}]}"#;
/// let event = Message { payload, ..Message::default() }.tree()?;
///
/// assert_eq!(event.get::<String>("repository.full_name")?, "octocat/Hello-World");
/// assert_eq!(event.get::<String>("commits.0.id")?, "7fd1a60b");
/// assert_eq!(event.get::<Option<String>>("repository.license")?, None);
/// assert_eq!(event.get::<Json>("repository")?.as_str(), r#"{"full_name": "octocat/Hello-World"}"#);
///
/// // A missing value or a wrong type is a rejection with the full path.
/// assert_eq!(event.get::<String>("sender.login").unwrap_err().reason, "sender.login: missing");
/// let commits = event.list("commits")?;
/// assert_eq!(commits[1].get::<String>("id").unwrap_err().reason, "commits.1.id: invalid type: integer `3`, expected a string");
/// # Ok::<(), lantern_sdk::Rejection>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tree<'a> {
    raw: &'a RawValue,
    /// The path from the root of the document; empty for the root.
    at: String,
}

impl<'a> Tree<'a> {
    pub(crate) fn of(text: &'a str) -> Result<Self> {
        let raw = serde_json::from_str(text)?;
        Ok(Self {
            raw,
            at: String::new(),
        })
    }

    /// Parses the value at a path; an empty path is the whole document. A missing value is parsed as `null`, so that an `Option` is
    /// `None`.
    ///
    /// # Errors
    /// A malformed rejection that names the path.
    pub fn get<T: Deserialize<'a>>(&self, path: &str) -> Result<T> {
        match self.find(path)? {
            Some(raw) => T::deserialize(raw).map_err(|error| self.rejection(path, &error)),
            None => {
                let nothing: UnitDeserializer<de::value::Error> = ().into_deserializer();
                T::deserialize(nothing).map_err(|_| self.rejection(path, &"missing"))
            }
        }
    }

    /// The elements of the array at a path. A missing value or `null` has none, and another value is the only element. Arrays
    /// within the path are flattened: `groups.members` returns the members of all groups.
    ///
    /// # Errors
    /// A malformed rejection that names the path.
    pub fn list(&self, path: &str) -> Result<Vec<Self>> {
        let mut found = vec![self.clone()];
        for name in path.split('.') {
            let mut next = Vec::new();
            for tree in &found {
                tree.elements(name, &mut next)?;
            }
            found = next;
        }
        Ok(found)
    }

    fn elements(&self, name: &str, into: &mut Vec<Self>) -> Result {
        let at = self.path(name);
        match self.find(name)? {
            Some(raw) if raw.get().starts_with('[') => {
                let elements: Vec<&RawValue> = serde_json::from_str(raw.get())?;
                into.extend(elements.into_iter().zip(0..).map(|(raw, index)| Self {
                    raw,
                    at: format!("{at}.{index}"),
                }));
            }
            Some(raw) if raw.get() != "null" => into.push(Self { raw, at }),
            Some(_) | None => {}
        }
        Ok(())
    }

    /// The text of the document.
    pub fn as_str(&self) -> &'a str {
        self.raw.get()
    }

    fn find(&self, path: &str) -> Result<Option<&'a RawValue>> {
        if path.is_empty() {
            return Ok(Some(self.raw));
        }
        let mut json = serde_json::Deserializer::from_str(self.raw.get());
        let found = Step(path).deserialize(&mut json);
        found.map_err(|error| self.rejection(path, &error))
    }

    fn path(&self, rest: &str) -> String {
        match (self.at.as_str(), rest) {
            ("", _) => rest.to_owned(),
            (at, "") => at.to_owned(),
            (at, _) => format!("{at}.{rest}"),
        }
    }

    #[cold]
    fn rejection(&self, path: &str, error: &dyn fmt::Display) -> Rejection {
        let (path, error) = (self.path(path), error.to_string());
        // Omits line and column, which are relative to a part of the document.
        let error = error.split(" at line ").next().unwrap_or(&error);
        if path.is_empty() {
            return Rejection::malformed(error);
        }
        Rejection::malformed(format_args!("{path}: {error}"))
    }
}

/// A path from a value to a nested one.
#[derive(Clone, Copy)]
struct Step<'p>(&'p str);

impl<'p> Step<'p> {
    /// The first name, and the remaining path.
    fn split(self) -> (&'p str, Option<Self>) {
        match self.0.split_once('.') {
            Some((name, rest)) => (name, Some(Self(rest))),
            None => (self.0, None),
        }
    }
}

/// Reads a value, or a value within it.
struct Inside<'p>(Option<Step<'p>>);

impl<'de> DeserializeSeed<'de> for Inside<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        match self.0 {
            Some(step) => step.deserialize(deserializer),
            None => <&RawValue>::deserialize(deserializer).map(Some),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object or an array with `{}`", self.split().0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let (name, rest) = self.split();
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(Named(name))? {
            if is_it {
                found = map.next_value_seed(Inside(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self::Value, A::Error> {
        let (name, rest) = self.split();
        let index: usize = name
            .parse()
            .map_err(|_| A::Error::invalid_type(de::Unexpected::Seq, &self))?;
        for _ in 0..index {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = seq.next_element_seed(Inside(rest))?.flatten();
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }

    fn visit_unit<E: Error>(self) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }
}

/// Compares a key with a name.
struct Named<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Named<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> std::result::Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Json, Timestamp, UnixNanos};

    const TEXT: &str = r#"{"a":{"b":[10,{"c":"x\ny"}],"t":"2026-05-28T10:41:00Z","n":null},"ns":"1000","raw":{"z":1.50,"a":2},"a\u0062":7}"#;

    #[test]
    fn values_are_read_by_path() {
        let tree = Tree::of(TEXT).unwrap();
        assert_eq!(tree.get::<i64>("a.b.0"), Ok(10));
        assert_eq!(tree.get::<String>("a.b.1.c"), Ok("x\ny".to_owned()));
        assert_eq!(
            tree.get::<Timestamp>("a.t"),
            Ok(Timestamp::from_micros(1_779_964_860_000_000))
        );
        assert_eq!(
            tree.get::<UnixNanos>("ns").map(Timestamp::from),
            Ok(Timestamp::from_micros(1))
        );
        assert_eq!(tree.get::<i64>("ab"), Ok(7), "a key with an escape");
        assert_eq!(tree.get::<Json>("raw").unwrap().as_str(), r#"{"z":1.50,"a":2}"#);
        let nested = Tree::of(r#"{"g":[{"m":[1,2]},{},{"m":3},{"m":null}]}"#).unwrap();
        let members = nested.list("g.m").unwrap();
        let numbers: Vec<i64> = members.iter().map(|member| member.get("").unwrap()).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(
            members[1].get::<bool>("").unwrap_err().reason,
            "g.0.m.1: invalid type: integer `2`, expected a boolean"
        );
        for nothing in ["a.n", "a.n.deeper", "a.x", "x.y.z", "a.b.9"] {
            assert_eq!(tree.get::<Option<i64>>(nothing), Ok(None), "{nothing}");
        }
        assert_eq!(tree.list("a.b").unwrap().len(), 2);
        assert_eq!(tree.list("a.x").unwrap().len(), 0);
        assert_eq!(tree.list("raw").unwrap()[0].get::<i64>("a"), Ok(2));
    }

    #[test]
    fn reasons_name_the_path() {
        let tree = Tree::of(TEXT).unwrap();
        let reason = |path: &str| tree.get::<i64>(path).unwrap_err().reason;
        assert_eq!(reason("a.q"), "a.q: missing");
        assert_eq!(reason("a.n"), "a.n: invalid type: null, expected i64");
        assert!(
            reason("a.t").starts_with("a.t: invalid type: string \"2026"),
            "{}",
            reason("a.t")
        );
        assert!(
            reason("a.b.c").starts_with("a.b.c: invalid type: sequence, expected an object"),
            "{}",
            reason("a.b.c")
        );
        assert!(
            reason("ns.x").starts_with("ns.x: invalid type: string"),
            "{}",
            reason("ns.x")
        );
        assert!(Tree::of("{").is_err() && Tree::of("{} x").is_err());
    }
}
