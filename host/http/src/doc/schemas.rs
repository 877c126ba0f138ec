//! Collects the schemas that routes reference.
//!
//! In responses the host always writes nullable fields, and omits a field only if it is not nullable. Derived schemas do
//! not mark nullable fields as required, so this module does, for responses only: a client may omit nullable fields of a
//! request. Derived schemas also declare null as the default of optional fields, which is not one of their values; this
//! module removes it.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, Object, Schema, SchemaType, Type};

/// Schemas by name.
#[derive(Clone, Default)]
pub struct Schemas {
    all: BTreeMap<String, RefOr<Schema>>,
    /// Names of two different schemas, of which the last one is kept. A test asserts that there are none.
    ambiguous: Vec<String>,
}

impl Schemas {
    /// Adds the schema of a request body and those that it references.
    pub fn add<T: ToSchema>(&mut self) {
        for (name, schema) in of::<T>() {
            self.insert(name, schema);
        }
    }

    /// Adds the schema of a response and those that it references.
    pub fn add_answer<T: ToSchema>(&mut self) {
        for (name, mut schema) in of::<T>() {
            require_nullable(&mut schema);
            self.insert(name, schema);
        }
    }

    /// All schemas, and the ambiguous names.
    pub fn into_parts(self) -> (BTreeMap<String, RefOr<Schema>>, Vec<String>) {
        (self.all, self.ambiguous)
    }

    fn insert(&mut self, name: String, mut schema: RefOr<Schema>) {
        remove_null_defaults(&mut schema);
        if self.all.get(&name).is_some_and(|known| *known != schema) {
            self.ambiguous.push(name.clone());
        }
        self.all.insert(name, schema);
    }
}

fn of<T: ToSchema>() -> Vec<(String, RefOr<Schema>)> {
    let mut schemas = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    schemas
}

/// Removes null defaults; only properties have defaults.
fn remove_null_defaults(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::T(Schema::Object(object)) => {
            for property in object.properties.values_mut() {
                let default = match property {
                    RefOr::Ref(named) => &mut named.default,
                    RefOr::T(Schema::Object(object)) => &mut object.default,
                    RefOr::T(Schema::Array(array)) => &mut array.default,
                    RefOr::T(Schema::OneOf(one_of)) => &mut one_of.default,
                    RefOr::T(_) => continue,
                };
                if default.as_ref().is_some_and(Value::is_null) {
                    *default = None;
                }
            }
        }
        RefOr::T(Schema::AllOf(all_of)) => all_of.items.iter_mut().for_each(remove_null_defaults),
        _ => {}
    }
}

/// Marks every nullable property as required.
fn require_nullable(schema: &mut RefOr<Schema>) {
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::Object(object) => nullable_properties(object),
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                require_nullable(items);
            }
        }
        Schema::OneOf(one_of) => one_of.items.iter_mut().for_each(require_nullable),
        Schema::AllOf(all_of) => all_of.items.iter_mut().for_each(require_nullable),
        Schema::AnyOf(any_of) => any_of.items.iter_mut().for_each(require_nullable),
        _ => {}
    }
}

fn nullable_properties(object: &mut Object) {
    for (name, property) in &mut object.properties {
        require_nullable(property);
        if is_nullable(property) && !object.required.contains(name) {
            object.required.push(name.clone());
        }
    }
    if let Some(AdditionalProperties::RefOr(values)) = object.additional_properties.as_deref_mut() {
        require_nullable(values);
    }
}

fn is_nullable(schema: &RefOr<Schema>) -> bool {
    let RefOr::T(schema) = schema else { return false };
    let null = |schema_type: &SchemaType| match schema_type {
        SchemaType::Type(one) => *one == Type::Null,
        SchemaType::Array(several) => several.contains(&Type::Null),
        SchemaType::AnyValue => false,
    };
    match schema {
        Schema::Object(object) => null(&object.schema_type),
        Schema::Array(array) => null(&array.schema_type),
        Schema::OneOf(one_of) => one_of.items.iter().any(is_nullable),
        _ => false,
    }
}
