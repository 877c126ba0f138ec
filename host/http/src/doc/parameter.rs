//! Parameters of the query, as a route says them of itself.

use serde_json::{Value, json};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, SchemaFormat, Type};
use utoipa::openapi::{ObjectBuilder, RefOr, Required, Schema};

/// A parameter of the query.
pub struct Query {
    name: &'static str,
    description: String,
    schema: RefOr<Schema>,
    required: bool,
    /// Whether several values stand as several parameters, or with commas between them.
    explode: Option<bool>,
}

/// Text.
pub fn text(name: &'static str, description: impl Into<String>) -> Query {
    Query {
        name,
        description: description.into(),
        schema: ObjectBuilder::new().schema_type(Type::String).into(),
        required: false,
        explode: None,
    }
}

/// A moment in RFC 3339.
pub fn time(name: &'static str, description: &str) -> Query {
    let time = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    Query {
        schema: time.into(),
        ..text(name, description)
    }
}

/// One of these words.
pub fn choice(name: &'static str, words: &[&str], description: impl Into<String>) -> Query {
    let one = ObjectBuilder::new().schema_type(Type::String);
    Query {
        schema: one.enum_values(Some(words.iter().copied())).into(),
        ..text(name, description)
    }
}

/// A whole number between these two, and what it is when nothing is said.
pub fn number(name: &'static str, least: u32, most: u32, default: u32, description: &str) -> Query {
    let number = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(least))
        .maximum(Some(most))
        .default(Some(json!(default)));
    Query {
        schema: number.into(),
        ..text(name, description)
    }
}

/// A list with commas between.
pub fn list(name: &'static str, description: impl Into<String>) -> Query {
    Query {
        schema: texts().into(),
        explode: Some(false),
        ..text(name, description)
    }
}

/// Text that may be given at most so many times.
pub fn repeated(name: &'static str, times_max: usize, description: impl Into<String>) -> Query {
    Query {
        schema: texts().max_items(Some(times_max)).into(),
        explode: Some(true),
        ..text(name, description)
    }
}

/// Text in a header.
pub fn header(name: &'static str, description: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

fn texts() -> ArrayBuilder {
    ArrayBuilder::new().items(ObjectBuilder::new().schema_type(Type::String))
}

impl Query {
    /// It has to be given.
    pub fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }

    /// A value that shows how it is written.
    pub fn example(mut self, example: impl Into<Value>) -> Self {
        match &mut self.schema {
            RefOr::T(Schema::Object(one)) => one.examples.push(example.into()),
            RefOr::T(Schema::Array(several)) => several.examples.push(example.into()),
            _ => {}
        }
        self
    }
}

impl From<Query> for Parameter {
    fn from(query: Query) -> Self {
        ParameterBuilder::new()
            .name(query.name)
            .parameter_in(ParameterIn::Query)
            .required(if query.required {
                Required::True
            } else {
                Required::False
            })
            .description(Some(query.description))
            .schema(Some(query.schema))
            .explode(query.explode)
            .build()
    }
}
