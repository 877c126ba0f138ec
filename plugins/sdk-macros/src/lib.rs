//! The derives of `lantern-sdk`: a struct's fields become the columns of a table, or of the rows of a write.
//! Whatever can be known to be wrong while compiling is an error here, at the field that is wrong. The traits
//! that the derives implement, and their documentation, are in `lantern-sdk`.

mod fields;
mod row;
mod table;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Declares a table: its columns are the struct's fields. See `lantern_sdk::Table`.
#[proc_macro_derive(Table, attributes(table, column))]
pub fn derive_table(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    table::expand(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Declares a write: its columns are the struct's fields. See `lantern_sdk::Row`.
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
    fn refused(result: syn::Result<proc_macro2::TokenStream>, expected: &str) {
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
    fn what_is_wrong_in_a_table_is_said() {
        refused(
            table(parse_quote!(
                struct T {
                    a: i64,
                }
            )),
            "say `#[table(name = \"…\")]`",
        );
        refused(
            table(parse_quote!(
                #[table(name = "T")]
                struct T {
                    a: i64,
                }
            )),
            "`T` is no name: at most 63 of a-z, 0-9 and `_`, beginning with a letter",
        );
        refused(
            table(parse_quote!(
                #[table(name = "t")]
                struct T {
                    _a: i64,
                }
            )),
            "`_a` is no name: at most 63 of a-z, 0-9 and `_`, beginning with a letter",
        );
        refused(
            table(parse_quote!(
                #[table(name = "t", index = [a, b])]
                struct T {
                    a: i64,
                }
            )),
            "there is no column `b` here",
        );
        refused(
            table(parse_quote!(
                #[table(name = "t", index = [])]
                struct T {
                    a: i64,
                }
            )),
            "name at least one column",
        );
        refused(
            table(parse_quote!(
                #[table(name = "t", retention_days = 3)]
                struct T {
                    a: i64,
                }
            )),
            "`retention_days` needs a column with the role `time`",
        );
        refused(
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
        refused(
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
        refused(
            table(parse_quote!(
                #[table(name = "t")]
                struct T(i64);
            )),
            "the struct needs fields with names: they are the columns",
        );
        refused(
            table(parse_quote!(
                enum T {}
            )),
            "only a struct can be a table or a row",
        );
        refused(
            table(parse_quote!(
                struct T {}
            )),
            "the struct needs at least one field",
        );
    }

    #[test]
    fn what_is_wrong_in_a_row_is_said() {
        refused(
            row(parse_quote!(
                #[row(on_conflict = explode)]
                struct T {
                    a: i64,
                }
            )),
            "a conflict is answered with `fail`, `ignore` or `update(…)`",
        );
        refused(
            row(parse_quote!(
                #[row(on_conflict = update(replace = [a]))]
                struct T {
                    a: i64,
                }
            )),
            "say by which key the stored row is found: `key = […]`",
        );
        refused(
            row(parse_quote!(
                #[row(on_conflict = update(key = [a], replace = [b]))]
                struct T {
                    a: i64,
                }
            )),
            "there is no column `b` here",
        );
        refused(
            row(parse_quote!(
                #[row(on_conflict = update(key = [a], newer = at))]
                struct T {
                    a: i64,
                }
            )),
            "there is no column `at` here",
        );
        refused(
            row(parse_quote!(
                #[row(on_conflict = update(key = [a], add = [b], max = [b]))]
                struct T {
                    a: i64,
                    b: i64,
                }
            )),
            "`b` is merged twice",
        );
        refused(
            row(parse_quote!(
                #[row(on_conflict = update(key = [a], replaces = [a]))]
                struct T {
                    a: i64,
                }
            )),
            "an update has `key`, `while_null`, `newer`, `replace`, `keep`, `fill`, `add`, `min` and `max`",
        );
    }
}
