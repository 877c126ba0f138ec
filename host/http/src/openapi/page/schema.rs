//! Renders schemas as HTML, briefly or field by field, and builds example values.

use serde_json::{Map, Value};
use utoipa::openapi::schema::{
    AdditionalProperties, Array, ArrayItems, Object, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{Components, RefOr};

use super::html::{Html, code, escape, prose};

/// Short description of a type; a named schema becomes a link.
pub fn type_label(schema: &RefOr<Schema>) -> String {
    match schema {
        RefOr::Ref(named) => {
            let name = escape(named.ref_location.rsplit('/').next().unwrap_or_default());
            format!("<a href=\"#schema-{name}\">{name}</a>")
        }
        RefOr::T(Schema::Object(object)) => of_object(object),
        RefOr::T(Schema::Array(array)) => of_array(array),
        RefOr::T(Schema::OneOf(one_of)) => joined(&one_of.items, " or "),
        RefOr::T(Schema::AnyOf(any_of)) => joined(&any_of.items, " or "),
        RefOr::T(Schema::AllOf(all_of)) => joined(&all_of.items, " and "),
        RefOr::T(_) => String::new(),
    }
}

/// Joins alternatives, null last.
fn joined(items: &[RefOr<Schema>], between: &str) -> String {
    let mut all: Vec<String> = items.iter().map(type_label).collect();
    all.sort_by_key(|label| label == "null");
    all.join(between)
}

fn of_object(object: &Object) -> String {
    if let Some(values) = &object.enum_values {
        let values: Vec<String> = values.iter().map(|value| code(&value.to_string())).collect();
        return values.join(" or ");
    }
    let types = match &object.schema_type {
        SchemaType::Type(one) => std::slice::from_ref(one),
        SchemaType::Array(several) => several,
        SchemaType::AnyValue => return "any JSON".to_owned(),
    };
    let mut all: Vec<String> = types.iter().map(|one| of_type(one, object)).collect();
    all.sort_by_key(|label| label == "null");
    let mut label = all.join(" or ");
    if let (Some(least), Some(most)) = (&object.minimum, &object.maximum) {
        let text = |number| serde_json::to_string(number).unwrap_or_default();
        label.push_str(&format!(", {} to {}", text(least), text(most)));
    }
    if let Some(default) = &object.default {
        label.push_str(&format!(", default {}", code(&default.to_string())));
    }
    label
}

fn of_type(one: &Type, object: &Object) -> String {
    match one {
        Type::String if matches!(object.format, Some(SchemaFormat::KnownFormat(_))) => "time",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::Array => "array",
        Type::Null => "null",
        Type::Object => match object.additional_properties.as_deref() {
            Some(AdditionalProperties::RefOr(values)) => return format!("object of {}", type_label(values)),
            _ => "object",
        },
    }
    .to_owned()
}

fn of_array(array: &Array) -> String {
    let null = matches!(&array.schema_type, SchemaType::Array(types) if types.contains(&Type::Null));
    let items = match &array.items {
        ArrayItems::RefOrSchema(items) => format!("array of {}", type_label(items)),
        ArrayItems::False => {
            let parts = array.prefix_items.iter().cloned().map(RefOr::T);
            let parts: Vec<String> = parts.map(|part| type_label(&part)).collect();
            format!("[{}]", parts.join(", "))
        }
    };
    items + if null { " or null" } else { "" }
}

/// Renders a named schema: its description and its fields.
pub fn details(schema: &RefOr<Schema>) -> String {
    let mut html = Html::default();
    let description = match schema {
        RefOr::T(Schema::Object(object)) => &object.description,
        RefOr::T(Schema::AllOf(all_of)) => &all_of.description,
        RefOr::T(Schema::Array(array)) => &array.description,
        _ => &None,
    };
    html.push(&prose(description.as_deref().unwrap_or_default()));
    match schema {
        RefOr::T(Schema::Object(object)) if !object.properties.is_empty() => fields(&mut html, object),
        RefOr::T(Schema::AllOf(all_of)) => {
            for item in &all_of.items {
                match item {
                    RefOr::T(Schema::Object(object)) => fields(&mut html, object),
                    named => html.push(&format!("<p>All of {}, and:\n", type_label(named))),
                }
            }
        }
        other => html.push(&format!("<p>{}\n", type_label(other))),
    }
    html.into_string()
}

fn fields(html: &mut Html, object: &Object) {
    html.push("<table>\n");
    for (name, property) in &object.properties {
        let place = match object.required.contains(name) {
            true => "",
            false => " <small>optional</small>",
        };
        html.push(&format!(
            "<tr><th>{}{place}<td class=\"type\">{}<td>{}\n",
            code(name),
            type_label(property),
            prose(description(property)),
        ));
    }
    if let Some(AdditionalProperties::FreeForm(true)) = object.additional_properties.as_deref() {
        html.push("<tr><th>other fields<td class=\"type\">any JSON<td>\n");
    }
    html.push("</table>\n");
}

fn description(schema: &RefOr<Schema>) -> &str {
    let description = match schema {
        RefOr::Ref(named) => return &named.description,
        RefOr::T(Schema::Object(object)) => &object.description,
        RefOr::T(Schema::Array(array)) => &array.description,
        RefOr::T(Schema::OneOf(one_of)) => &one_of.description,
        RefOr::T(Schema::AnyOf(any_of)) => &any_of.description,
        RefOr::T(Schema::AllOf(all_of)) => &all_of.description,
        RefOr::T(_) => &None,
    };
    description.as_deref().unwrap_or_default()
}

/// Example string of a schema.
pub fn example(schema: &RefOr<Schema>) -> Option<&str> {
    match schema {
        RefOr::T(Schema::Object(object)) => object.examples.first()?.as_str(),
        _ => None,
    }
}

/// Sample value of a schema: its example, or its required fields.
pub fn sample(schema: &RefOr<Schema>, components: Option<&Components>) -> Value {
    let object = match schema {
        RefOr::Ref(named) => {
            let name = named.ref_location.rsplit('/').next().unwrap_or_default();
            let found = components.and_then(|components| components.schemas.get(name));
            return found.map_or(Value::Null, |schema| sample(schema, components));
        }
        RefOr::T(Schema::Object(object)) => object,
        RefOr::T(_) => return Value::Null,
    };
    if let Some(example) = object.examples.first() {
        return example.clone();
    }
    if let Some(first) = object.enum_values.as_ref().and_then(|values| values.first()) {
        return first.clone();
    }
    match &object.schema_type {
        SchemaType::Type(Type::String) => "…".into(),
        SchemaType::Type(Type::Integer | Type::Number) => 1.into(),
        SchemaType::Type(Type::Boolean) => true.into(),
        _ => {
            let needed = object
                .properties
                .iter()
                .filter(|(name, _)| object.required.contains(name));
            let values = needed.map(|(name, property)| (name.clone(), sample(property, components)));
            Value::Object(values.collect::<Map<_, _>>())
        }
    }
}
