//! `#[derive(Row)]`: generates a write and the values of its rows from a struct.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::ParseStream;
use syn::spanned::Spanned as _;
use syn::{DeriveInput, Error, Ident, LitStr, Path, Result, Token, parenthesized};

use crate::fields::{self, Column};

/// The settings in `#[row(…)]`.
#[derive(Default)]
struct Settings {
    table: Option<Path>,
    on_conflict: Option<OnConflict>,
}

enum OnConflict {
    Fail,
    Ignore,
    Update(Update),
}

#[derive(Default)]
struct Update {
    key: Vec<LitStr>,
    merges: Vec<(LitStr, TokenStream)>,
    /// The column of the guard, and the guard.
    guard: Option<(LitStr, TokenStream)>,
}

/// The implementation of `lantern_sdk::Row`.
pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let columns = fields::columns(input)?;
    let settings = settings(input, &columns)?;
    let (ident, (generics, type_generics, bounds)) = (&input.ident, input.generics.split_for_impl());
    let table = match &settings.table {
        Some(path) => quote!(#path),
        None => quote!(#ident #type_generics),
    };
    let on_conflict = settings.on_conflict.unwrap_or(OnConflict::Fail);
    let checks = checks(&columns, &on_conflict);
    let names = columns.iter().map(|column| &column.name);
    // With the span of the field's type, like the error of the table derive, so that the compiler reports it once.
    let values = columns.iter().map(|Column { ident, ty, .. }| {
        quote_spanned!(ty.span()=> <#ty as ::lantern_sdk::ColumnValue>::into_value(self.#ident))
    });
    let conflict_tokens = conflict_tokens(&on_conflict);
    let name = ident.to_string();
    let at_once = input
        .generics
        .params
        .is_empty()
        .then(|| quote!(const _: () = { let _ = <#ident as ::lantern_sdk::Row>::WRITE; };));
    Ok(quote! {
        impl #generics ::lantern_sdk::Row for #ident #type_generics #bounds {
            const WRITE: ::lantern_sdk::declare::Write = {
                let table: &'static ::lantern_sdk::declare::Table = &<#table as ::lantern_sdk::Table>::TABLE;
                let columns: &'static [&'static str] = &[#(#names),*];
                #(#checks)*
                ::lantern_sdk::declare::Write {
                    row: ::core::concat!(::core::module_path!(), "::", #name),
                    table,
                    columns,
                    on_conflict: #conflict_tokens,
                }
            };

            #[inline]
            fn into_values(self) -> ::std::vec::Vec<::lantern_sdk::Value> {
                ::std::vec![#(#values),*]
            }
        }
        #at_once
    })
}

fn settings(input: &DeriveInput, columns: &[Column]) -> Result<Settings> {
    let mut settings = Settings::default();
    for attribute in input
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("row"))
    {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("table") {
                settings.table = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("on_conflict") {
                settings.on_conflict = Some(on_conflict(meta.value()?, columns)?);
            } else {
                return Err(meta.error("expected `table = Type` or `on_conflict = …`"));
            }
            Ok(())
        })?;
    }
    Ok(settings)
}

fn on_conflict(input: ParseStream<'_>, columns: &[Column]) -> Result<OnConflict> {
    let word: Ident = input.parse()?;
    if word == "fail" {
        return Ok(OnConflict::Fail);
    }
    if word == "ignore" {
        return Ok(OnConflict::Ignore);
    }
    if word != "update" {
        return Err(Error::new(
            word.span(),
            "`on_conflict` is `fail`, `ignore` or `update(…)`",
        ));
    }
    let content;
    parenthesized!(content in input);
    let mut update = Update::default();
    while !content.is_empty() {
        update_rule(&mut update, &content, columns)?;
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    if update.key.is_empty() {
        return Err(Error::new(
            word.span(),
            "missing `key = […]`, which identifies the stored row",
        ));
    }
    Ok(OnConflict::Update(update))
}

fn update_rule(update: &mut Update, input: ParseStream<'_>, columns: &[Column]) -> Result<()> {
    let word: Ident = input.parse()?;
    input.parse::<Token![=]>()?;
    let merge = match word.to_string().as_str() {
        "key" => {
            update.key = fields::key_columns(input, columns)?;
            return Ok(());
        }
        "while_null" => {
            // The guard applies to the stored row, so this row need not have the column.
            let column = fields::column_name(input)?;
            update.guard = Some((column.clone(), quote!(WhileNull(#column))));
            return Ok(());
        }
        "newer" => {
            let column = fields::column_name(input)?;
            fields::check_column(&column, columns)?;
            update.guard = Some((column.clone(), quote!(Newer(#column))));
            return Ok(());
        }
        "replace" => quote!(Replace),
        "keep" => quote!(Keep),
        "fill" => quote!(Fill),
        "add" => quote!(Add),
        "min" => quote!(Min),
        "max" => quote!(Max),
        _ => {
            let settings = "`key`, `while_null`, `newer`, `replace`, `keep`, `fill`, `add`, `min` or `max`";
            return Err(Error::new(word.span(), format!("expected {settings}")));
        }
    };
    for column in fields::column_list(input, columns)? {
        if update
            .merges
            .iter()
            .any(|(earlier, _)| earlier.value() == column.value())
        {
            return Err(Error::new(
                column.span(),
                format!("`{}` has two merge rules", column.value()),
            ));
        }
        update.merges.push((column, merge.clone()));
    }
    Ok(())
}

/// Checks between a row and its table, which may be another struct, evaluated by the compiler as constants.
fn checks(columns: &[Column], on_conflict: &OnConflict) -> Vec<TokenStream> {
    let mut checks = Vec::new();
    for Column { name, ty, .. } in columns {
        let message = format!(
            "the table has no column `{}` with the type of this field",
            name.value()
        );
        checks.push(quote_spanned! { ty.span() =>
            ::core::assert!(
                table.takes(#name, <#ty as ::lantern_sdk::ColumnValue>::TYPE, <#ty as ::lantern_sdk::ColumnValue>::NULLABLE),
                #message
            );
        });
    }
    checks.push(quote! {
        ::core::assert!(table.completes(columns), "the row omits a column that is not nullable");
    });
    if let OnConflict::Update(Update { key, guard, .. }) = on_conflict {
        checks.push(quote! {
            ::core::assert!(table.has_key(&[#(#key),*]), "`key` must be the table's primary key or one of its unique indexes");
        });
        if let Some((column, _)) = guard {
            let message = format!("the guard's column `{}` is not in the table", column.value());
            checks.push(quote!(::core::assert!(table.has_column(#column), #message);));
        }
    }
    checks
}

fn conflict_tokens(on_conflict: &OnConflict) -> TokenStream {
    let path = quote!(::lantern_sdk::declare);
    match on_conflict {
        OnConflict::Fail => quote!(#path::OnConflict::Fail),
        OnConflict::Ignore => quote!(#path::OnConflict::Ignore),
        OnConflict::Update(Update {
            key, merges, guard, ..
        }) => {
            let merges = merges
                .iter()
                .map(|(column, merge)| quote!((#column, #path::Merge::#merge)));
            let guard = guard
                .as_ref()
                .map_or_else(|| quote!(Always), |(_, guard)| guard.clone());
            quote! {
                #path::OnConflict::Update(#path::Update {
                    key: &[#(#key),*],
                    merges: &[#(#merges),*],
                    guard: #path::Guard::#guard,
                })
            }
        }
    }
}
