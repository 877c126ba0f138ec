//! The derives of `lantern-sdk`: the fields of a struct become the columns of a table, or of the rows of a write. Mistakes are
//! reported at compile time at the field. The traits with their documentation are in `lantern-sdk`.

mod fields;
mod limits;
mod row;
mod table;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Declares a table whose columns are the fields of the struct. See `lantern_sdk::Table`.
#[proc_macro_derive(Table, attributes(table, column))]
pub fn derive_table(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    table::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Declares a write whose columns are the fields of the struct. See `lantern_sdk::Row`.
#[proc_macro_derive(Row, attributes(row, column))]
pub fn derive_row(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    row::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

#[cfg(test)]
mod tests {
    use syn::{DeriveInput, parse_quote};

    #[track_caller]
    fn rejects(result: syn::Result<proc_macro2::TokenStream>, expected: &str) {
        assert_eq!(
            result.map(|tokens| tokens.to_string()).unwrap_err().to_string(),
            expected
        );
    }

    fn table(input: DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
        crate::table::expand(&input)
    }

    fn row(input: DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
        crate::row::expand(&input)
    }

    #[test]
    fn mistakes_in_the_settings_of_a_table_are_reported() {
        rejects(
            table(parse_quote!(
                struct T {
                    a: i64,
                }
            )),
            "missing `#[table(name = \"…\")]`",
        );
        rejects(
            table(parse_quote!(
                #[table(name = "T")]
                struct T {
                    a: i64,
                }
            )),
            "`T` is not a valid name: at most 48 of a-z, 0-9 and `_`, starting with a letter",
        );
        rejects(
            table(parse_quote!(
                #[table(name = "t")]
                struct T {
                    _a: i64,
                }
            )),
            "`_a` is not a valid name: at most 63 of a-z, 0-9 and `_`, starting with a letter",
        );
        rejects(
            table(parse_quote!(
                #[table(name = "t", index = [a, b])]
                struct T {
                    a: i64,
                }
            )),
            "unknown column `b`",
        );
        rejects(
            table(parse_quote!(
                #[table(name = "t", index = [])]
                struct T {
                    a: i64,
                }
            )),
            "at least one column is required",
        );
        rejects(
            table(parse_quote!(
                #[table(name = "t", retention_days = 3)]
                struct T {
                    a: i64,
                }
            )),
            "`retention_days` requires a column with the role `time`",
        );
    }

    #[test]
    fn declarations_that_not_every_database_can_hold_are_reported() {
        rejects(
            table(parse_quote!(
                #[table(name = "a_table_with_a_name_of_more_than_forty_eight_bytes")]
                struct T {
                    a: i64,
                }
            )),
            "`a_table_with_a_name_of_more_than_forty_eight_bytes` is not a valid name: at most 48 of a-z, 0-9 and `_`, \
             starting with a letter",
        );
        rejects(
            table(parse_quote!(
                #[table(name = "t")]
                struct T {
                    xmin: f64,
                }
            )),
            "`xmin` is a system column of PostgreSQL; give the column another name, as in `#[column(name = \"…\")]`",
        );
        let columns: Vec<syn::Ident> = (0..29).map(|number| quote::format_ident!("c{number}")).collect();
        rejects(
            table(parse_quote!(
                #[table(name = "t", index = [#(#columns),*])]
                struct T {
                    #(#columns: i64),*
                }
            )),
            "a key or index has at most 28 columns",
        );
    }

    #[test]
    fn mistakes_in_the_columns_of_a_table_are_reported() {
        rejects(
            table(parse_quote!(
                #[table(name = "t")]
                struct T {
                    #[column(time)]
                    a: Timestamp,
                    #[column(time)]
                    b: Timestamp,
                }
            )),
            "a table has at most one column with the role `time`",
        );
        rejects(
            table(parse_quote!(
                #[table(name = "t")]
                struct T {
                    a: i64,
                    #[column(name = "a")]
                    b: i64,
                }
            )),
            "two columns are named `a`",
        );
        rejects(
            table(parse_quote!(
                #[table(name = "t")]
                struct T(i64);
            )),
            "the struct needs named fields, which are the columns",
        );
        rejects(
            table(parse_quote!(
                enum T {}
            )),
            "only a struct can be a table or a row",
        );
        rejects(
            table(parse_quote!(
                struct T {}
            )),
            "the struct needs at least one field",
        );
    }

    #[test]
    fn mistakes_in_a_row_are_reported() {
        rejects(
            row(parse_quote!(
                #[row(on_conflict = explode)]
                struct T {
                    a: i64,
                }
            )),
            "`on_conflict` is `fail`, `ignore` or `update(…)`",
        );
        rejects(
            row(parse_quote!(
                #[row(on_conflict = update(replace = [a]))]
                struct T {
                    a: i64,
                }
            )),
            "missing `key = […]`, which identifies the stored row",
        );
        rejects(
            row(parse_quote!(
                #[row(on_conflict = update(key = [a], replace = [b]))]
                struct T {
                    a: i64,
                }
            )),
            "unknown column `b`",
        );
        rejects(
            row(parse_quote!(
                #[row(on_conflict = update(key = [a], newer = at))]
                struct T {
                    a: i64,
                }
            )),
            "unknown column `at`",
        );
        rejects(
            row(parse_quote!(
                #[row(on_conflict = update(key = [a], add = [b], max = [b]))]
                struct T {
                    a: i64,
                    b: i64,
                }
            )),
            "`b` has two merge rules",
        );
        rejects(
            row(parse_quote!(
                #[row(on_conflict = update(key = [a], replaces = [a]))]
                struct T {
                    a: i64,
                }
            )),
            "expected `key`, `while_null`, `newer`, `replace`, `keep`, `fill`, `add`, `min` or `max`",
        );
    }
}
