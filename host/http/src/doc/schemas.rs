//! The schemas that routes name, collected once each.
//!
//! The host writes a field that can be null always, and leaves out a field only where it could not be null. Derived
//! schemas do not say that it is always there, so it is added here to whatever is part of an answer; a body is another
//! matter, since a client may leave out what can be null. They also say of what may be left out that it is null by
//! default, which is not a value that it can have; that is taken away.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems, Object, Schema, SchemaType, Type};

/// Schemas by name.
#[derive(Clone, Default)]
pub struct Schemas {
    all: BTreeMap<String, RefOr<Schema>>,
    /// Names that stand for two different schemas: the last one won. A test has to find none.
    ambiguous: Vec<String>,
}

impl Schemas {
    /// Adds the schema of a body, with those that it refers to.
    pub fn add<T: ToSchema>(&mut self) {
        for (name, schema) in of::<T>() {
            self.insert(name, schema);
        }
    }

    /// Adds the schema of an answer, with those that it refers to.
    pub fn add_answer<T: ToSchema>(&mut self) {
        for (name, mut schema) in of::<T>() {
            nulls_are_there(&mut schema);
            self.insert(name, schema);
        }
    }

    /// All of them, and the names that are ambiguous.
    pub fn into_parts(self) -> (BTreeMap<String, RefOr<Schema>>, Vec<String>) {
        (self.all, self.ambiguous)
    }

    fn insert(&mut self, name: String, mut schema: RefOr<Schema>) {
        without_null_defaults(&mut schema);
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

/// Properties are all that has defaults.
fn without_null_defaults(schema: &mut RefOr<Schema>) {
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
        RefOr::T(Schema::AllOf(all_of)) => all_of.items.iter_mut().for_each(without_null_defaults),
        _ => {}
    }
}

/// Makes every property that can be null one that has to be there.
fn nulls_are_there(schema: &mut RefOr<Schema>) {
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::Object(object) => nullable_properties(object),
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                nulls_are_there(items);
            }
        }
        Schema::OneOf(one_of) => one_of.items.iter_mut().for_each(nulls_are_there),
        Schema::AllOf(all_of) => all_of.items.iter_mut().for_each(nulls_are_there),
        Schema::AnyOf(any_of) => any_of.items.iter_mut().for_each(nulls_are_there),
        _ => {}
    }
}

fn nullable_properties(object: &mut Object) {
    for (name, property) in &mut object.properties {
        nulls_are_there(property);
        if can_be_null(property) && !object.required.contains(name) {
            object.required.push(name.clone());
        }
    }
    if let Some(AdditionalProperties::RefOr(values)) = object.additional_properties.as_deref_mut() {
        nulls_are_there(values);
    }
}

fn can_be_null(schema: &RefOr<Schema>) -> bool {
    let RefOr::T(schema) = schema else { return false };
    let null = |schema_type: &SchemaType| match schema_type {
        SchemaType::Type(one) => *one == Type::Null,
        SchemaType::Array(several) => several.contains(&Type::Null),
        SchemaType::AnyValue => false,
    };
    match schema {
        Schema::Object(object) => null(&object.schema_type),
        Schema::Array(array) => null(&array.schema_type),
        Schema::OneOf(one_of) => one_of.items.iter().any(can_be_null),
        _ => false,
    }
}
