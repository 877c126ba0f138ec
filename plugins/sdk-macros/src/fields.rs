//! Parses structs for both derives: fields as columns, doc comments, and column lists in attributes.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::parse::ParseStream;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, Field, Fields, Ident, LitStr, Result, Token, Type, bracketed,
    parenthesized,
};

use crate::limits;

/// A column, from a field.
pub struct Column {
    /// The name of the column: that of the field, or of `#[column(name = "…")]`.
    pub name: LitStr,
    /// The field.
    pub ident: Ident,
    /// The type of the field.
    pub ty: Type,
    /// The doc comment in one line.
    pub doc: String,
    /// The role, as tokens of a `declare::Role`.
    pub role: TokenStream,
    /// Whether the role is `time`.
    pub is_time: bool,
    /// Hints for the API, the CLI and the dashboard.
    pub hints: Vec<(LitStr, LitStr)>,
}

/// The named fields of a struct.
pub fn columns(input: &DeriveInput) -> Result<Vec<Column>> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(
            &input.ident,
            "only a struct can be a table or a row",
        ));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(
            &input.ident,
            "the struct needs named fields, which are the columns",
        ));
    };
    let columns = fields.named.iter().map(column).collect::<Result<Vec<_>>>()?;
    if columns.is_empty() {
        return Err(Error::new_spanned(
            &input.ident,
            "the struct needs at least one field",
        ));
    }
    for (index, column) in columns.iter().enumerate() {
        if columns[..index]
            .iter()
            .any(|earlier| earlier.name.value() == column.name.value())
        {
            return Err(Error::new(
                column.name.span(),
                format!("two columns are named `{}`", column.name.value()),
            ));
        }
    }
    Ok(columns)
}

fn column(field: &Field) -> Result<Column> {
    let Some(ident) = field.ident.clone() else {
        return Err(Error::new(field.span(), "a column needs a name"));
    };
    let mut column = Column {
        name: LitStr::new(ident.to_string().trim_start_matches("r#"), ident.span()),
        ident,
        ty: field.ty.clone(),
        doc: doc(&field.attrs),
        role: quote!(::lantern_sdk::declare::Role::None),
        is_time: false,
        hints: Vec::new(),
    };
    for attribute in field
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("column"))
    {
        attribute.parse_nested_meta(|meta| column_setting(&mut column, &meta))?;
    }
    check_name(&column.name, limits::COLUMN_NAME_BYTES_MAX)?;
    let name = column.name.value();
    if limits::SYSTEM_COLUMNS.contains(&name.as_str()) {
        return Err(Error::new(
            column.name.span(),
            format!(
                "`{name}` is a system column of PostgreSQL; give the column another name, as in `#[column(name = \"…\")]`"
            ),
        ));
    }
    Ok(column)
}

fn column_setting(column: &mut Column, meta: &ParseNestedMeta<'_>) -> Result<()> {
    let role = if meta.path.is_ident("time") {
        column.is_time = true;
        quote!(Time)
    } else if meta.path.is_ident("entity") {
        quote!(Entity)
    } else if meta.path.is_ident("facet") {
        quote!(Facet)
    } else if meta.path.is_ident("measure") {
        let unit: LitStr = meta.value()?.parse()?;
        quote!(Measure(#unit))
    } else if meta.path.is_ident("name") {
        column.name = meta.value()?.parse()?;
        return Ok(());
    } else if meta.path.is_ident("hint") {
        column.hints.push(hint(meta)?);
        return Ok(());
    } else {
        return Err(meta.error("expected `time`, `entity`, `facet`, `measure = \"unit\"`, `name = \"…\"` or `hint(\"key\", \"value\")`"));
    };
    column.role = quote!(::lantern_sdk::declare::Role::#role);
    Ok(())
}

/// Parses `hint("key", "value")`.
pub fn hint(meta: &ParseNestedMeta<'_>) -> Result<(LitStr, LitStr)> {
    let content;
    parenthesized!(content in meta.input);
    let key: LitStr = content.parse()?;
    content.parse::<Token![,]>()?;
    Ok((key, content.parse()?))
}

/// Hints as tokens of a constant slice.
pub fn hint_tokens(hints: &[(LitStr, LitStr)]) -> TokenStream {
    let pairs = hints.iter().map(|(key, value)| quote!((#key, #value)));
    quote!(&[#(#pairs),*])
}

/// Parses `[a, b]` as names of `columns`.
///
/// The lists are in brackets after `=`, because clippy reports `index(a), index(b, a)` as a repeated attribute.
pub fn column_list(input: ParseStream<'_>, columns: &[Column]) -> Result<Vec<LitStr>> {
    let content;
    let brackets = bracketed!(content in input);
    let names = content.parse_terminated(column_name, Token![,])?;
    if names.is_empty() {
        return Err(Error::new(
            brackets.span.join(),
            "at least one column is required",
        ));
    }
    names.iter().try_for_each(|name| check_column(name, columns))?;
    Ok(names.into_iter().collect())
}

/// Parses `[a, b]` as the columns of a key or index.
pub fn key_columns(input: ParseStream<'_>, columns: &[Column]) -> Result<Vec<LitStr>> {
    let names = column_list(input, columns)?;
    match names.get(limits::KEY_COLUMNS_MAX) {
        None => Ok(names),
        Some(name) => Err(Error::new(
            name.span(),
            format!("a key or index has at most {} columns", limits::KEY_COLUMNS_MAX),
        )),
    }
}

/// Parses the name of a column.
pub fn column_name(input: ParseStream<'_>) -> Result<LitStr> {
    let ident = Ident::parse_any(input)?;
    Ok(LitStr::new(
        ident.to_string().trim_start_matches("r#"),
        ident.span(),
    ))
}

/// Rejects a name that is not one of `columns`.
pub fn check_column(name: &LitStr, columns: &[Column]) -> Result<()> {
    if columns.iter().any(|column| column.name.value() == name.value()) {
        return Ok(());
    }
    Err(Error::new(
        name.span(),
        format!("unknown column `{}`", name.value()),
    ))
}

/// Rejects names that the contract does not allow.
pub fn check_name(name: &LitStr, length_max: usize) -> Result<()> {
    let text = name.value();
    let starts_with_letter = text.starts_with(|first: char| first.is_ascii_lowercase());
    let word_characters = text
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if starts_with_letter && word_characters && text.len() <= length_max {
        return Ok(());
    }
    Err(Error::new(
        name.span(),
        format!(
            "`{text}` is not a valid name: at most {length_max} of a-z, 0-9 and `_`, starting with a letter"
        ),
    ))
}

/// The doc comment as one line.
pub fn doc(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"))
    {
        let syn::Meta::NameValue(pair) = &attribute.meta else {
            continue;
        };
        let syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(line),
            ..
        }) = &pair.value
        else {
            continue;
        };
        for word in line.value().split_whitespace() {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(word);
        }
    }
    text
}
