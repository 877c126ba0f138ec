//! Descriptions of query parameters and headers.

use serde_json::{Value, json};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, SchemaFormat, Type};
use utoipa::openapi::{ObjectBuilder, RefOr, Required, Schema};

/// A query parameter.
pub struct Query {
    name: &'static str,
    description: String,
    schema: RefOr<Schema>,
    required: bool,
    /// Whether several values are repeated parameters instead of one comma-separated list.
    explode: Option<bool>,
}

/// A string.
pub fn text(name: &'static str, description: impl Into<String>) -> Query {
    Query {
        name,
        description: description.into(),
        schema: ObjectBuilder::new().schema_type(Type::String).into(),
        required: false,
        explode: None,
    }
}

/// A time in RFC 3339.
pub fn time(name: &'static str, description: &str) -> Query {
    let time = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    Query {
        schema: time.into(),
        ..text(name, description)
    }
}

/// One of several values.
pub fn choice(name: &'static str, values: &[&str], description: impl Into<String>) -> Query {
    let one = ObjectBuilder::new().schema_type(Type::String);
    Query {
        schema: one.enum_values(Some(values.iter().copied())).into(),
        ..text(name, description)
    }
}

/// An integer with its range and default.
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

/// A comma-separated list.
pub fn list(name: &'static str, description: impl Into<String>) -> Query {
    Query {
        schema: texts().into(),
        explode: Some(false),
        ..text(name, description)
    }
}

/// A string that may be repeated up to a limit.
pub fn repeated(name: &'static str, times_max: usize, description: impl Into<String>) -> Query {
    Query {
        schema: texts().max_items(Some(times_max)).into(),
        explode: Some(true),
        ..text(name, description)
    }
}

/// A header.
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
    /// Makes the parameter required.
    pub fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }

    /// Adds an example.
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
