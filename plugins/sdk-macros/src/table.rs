//! `#[derive(Table)]`: generates columns, keys and indexes from a struct.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{DeriveInput, Error, LitInt, LitStr, Result};

use crate::fields::{self, Column};
use crate::limits;

/// The settings of `#[table(…)]`.
const EXPECTED: &str = "expected `name = \"…\"`, `primary_key = […]`, `unique = […]`, `index = […]`, `retention_days = …`, \
    `view(\"name\", \"query\")`, `span_end = column`, `lane = column` or `hint(\"key\", \"value\")`";

/// The settings in `#[table(…)]`.
#[derive(Default)]
struct Settings {
    name: Option<LitStr>,
    primary_key: Vec<LitStr>,
    indexes: Vec<(Vec<LitStr>, bool)>,
    retention_days: Option<LitInt>,
    hints: Vec<(LitStr, LitStr)>,
}

/// The implementation of `lantern_sdk::Table`.
pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let columns = fields::columns(input)?;
    let settings = settings(input, &columns)?;
    let Some(name) = &settings.name else {
        return Err(Error::new_spanned(
            &input.ident,
            "missing `#[table(name = \"…\")]`",
        ));
    };
    fields::check_name(name, limits::TABLE_NAME_BYTES_MAX)?;
    let checks = checks(&columns, &settings)?;
    let column_tokens = columns.iter().map(column_tokens);
    let doc = fields::doc(&input.attrs);
    let primary_key = &settings.primary_key;
    let indexes = settings.indexes.iter().map(|(columns, unique)| {
        quote!(::lantern_sdk::declare::Index { columns: &[#(#columns),*], unique: #unique })
    });
    let retention_days = match &settings.retention_days {
        Some(days) => quote!(::core::option::Option::Some(#days)),
        None => quote!(::core::option::Option::None),
    };
    let hints = fields::hint_tokens(&settings.hints);
    let (ident, (generics, type_generics, bounds)) = (&input.ident, input.generics.split_for_impl());
    let reads = reads(input, &columns);
    Ok(quote! {
        impl #generics ::lantern_sdk::Table for #ident #type_generics #bounds {
            const TABLE: ::lantern_sdk::declare::Table = {
                #(#checks)*
                ::lantern_sdk::declare::Table {
                    name: #name,
                    doc: #doc,
                    columns: &[#(#column_tokens),*],
                    primary_key: &[#(#primary_key),*],
                    indexes: &[#(#indexes),*],
                    retention_days: #retention_days,
                    hints: #hints,
                }
            };
        }
        #reads
    })
}

fn settings(input: &DeriveInput, columns: &[Column]) -> Result<Settings> {
    let mut settings = Settings::default();
    for attribute in input
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("table"))
    {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                settings.name = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("primary_key") {
                settings.primary_key = fields::key_columns(meta.value()?, columns)?;
            } else if meta.path.is_ident("unique") {
                settings
                    .indexes
                    .push((fields::key_columns(meta.value()?, columns)?, true));
            } else if meta.path.is_ident("index") {
                settings
                    .indexes
                    .push((fields::key_columns(meta.value()?, columns)?, false));
            } else if meta.path.is_ident("retention_days") {
                settings.retention_days = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("hint") {
                settings.hints.push(fields::hint(&meta)?);
            } else if meta.path.is_ident("view") {
                let (name, query) = fields::hint(&meta)?;
                settings
                    .hints
                    .push((LitStr::new(&format!("view.{}", name.value()), name.span()), query));
            } else if meta.path.is_ident("span_end") || meta.path.is_ident("lane") {
                let key = if meta.path.is_ident("lane") {
                    "lane"
                } else {
                    "span_end"
                };
                let column = fields::column_name(meta.value()?)?;
                fields::check_column(&column, columns)?;
                settings.hints.push((LitStr::new(key, column.span()), column));
            } else {
                return Err(meta.error(EXPECTED));
            }
            Ok(())
        })?;
    }
    Ok(settings)
}

/// Checks that need the types of the columns, which only the compiler knows.
fn checks(columns: &[Column], settings: &Settings) -> Result<Vec<TokenStream>> {
    let mut checks = Vec::new();
    let times: Vec<_> = columns.iter().filter(|column| column.is_time).collect();
    if let Some(second) = times.get(1) {
        return Err(Error::new(
            second.name.span(),
            "a table has at most one column with the role `time`",
        ));
    }
    if let (Some(days), true) = (&settings.retention_days, times.is_empty()) {
        return Err(Error::new(
            days.span(),
            "`retention_days` requires a column with the role `time`",
        ));
    }
    for Column { name, ty, .. } in times {
        let message = format!("the time column `{}` must be a Timestamp", name.value());
        checks.push(quote_spanned! { ty.span() =>
            ::core::assert!(
                ::core::matches!(<#ty as ::lantern_sdk::ColumnValue>::TYPE, ::lantern_sdk::declare::ColumnType::Timestamp),
                #message
            );
        });
    }
    let in_key = |column: &&Column| {
        settings
            .primary_key
            .iter()
            .any(|key| key.value() == column.name.value())
    };
    for Column { name, ty, .. } in columns.iter().filter(in_key) {
        let message = format!("the primary key column `{}` cannot be an Option", name.value());
        checks.push(quote_spanned! { ty.span() =>
            ::core::assert!(!<#ty as ::lantern_sdk::ColumnValue>::NULLABLE, #message);
        });
    }
    Ok(checks)
}

fn column_tokens(column: &Column) -> TokenStream {
    let Column {
        name,
        ty,
        doc,
        role,
        hints,
        ..
    } = column;
    let hints = fields::hint_tokens(hints);
    quote! {
        ::lantern_sdk::declare::Column {
            name: #name,
            column_type: <#ty as ::lantern_sdk::ColumnValue>::TYPE,
            nullable: <#ty as ::lantern_sdk::ColumnValue>::NULLABLE,
            role: #role,
            doc: #doc,
            hints: #hints,
        }
    }
}

/// Evaluates the checks in `cargo check`, and reads every field, because the compiler would report unused fields of a struct that
/// only describes a table.
fn reads(input: &DeriveInput, columns: &[Column]) -> TokenStream {
    if !input.generics.params.is_empty() {
        return TokenStream::new();
    }
    let ident = &input.ident;
    let fields = columns.iter().map(|column| &column.ident);
    quote! {
        const _: () = {
            let _ = <#ident as ::lantern_sdk::Table>::TABLE;
        };
        const _: fn(&#ident) = |table| {
            #(let _ = &table.#fields;)*
        };
    }
}
