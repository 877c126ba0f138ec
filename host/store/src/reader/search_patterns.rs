//! The condition of a search for PostgreSQL, which has no function of the host: a regular expression for each term.

use super::bound::Bound;
use super::shape::Shape;
use crate::search::{SearchQuery, Term, TermPattern};
use crate::statement::quote;
use lantern_model::batch::Value;
use lantern_model::schema::ColumnType;

/// The condition that the row with the alias `t` matches a search.
pub(super) fn condition(shape: &Shape, query: &SearchQuery, bound: &mut Bound) -> String {
    let terms = query.terms.iter();
    let terms: Vec<String> = terms.map(|term| of_term(shape, term, bound)).collect();
    terms.join(" AND ")
}

fn of_term(shape: &Shape, term: &Term, bound: &mut Bound) -> String {
    let pattern = TermPattern::of(term);
    let text = bound.add(Value::Text(pattern.text));
    let is_read = |column: &usize| term.scope.as_ref().is_none_or(|scope| scope.column == *column);
    let mut either = Vec::new();
    for column in shape.searched().filter(is_read) {
        let described = &shape.columns[column];
        let name = format!("t.{}", quote(&described.name));
        let matches = if described.column_type == ColumnType::Json {
            let members = term.scope.as_ref().map_or(&[][..], |scope| &scope.members);
            let plain = pattern.plain_document.clone().filter(|_| members.is_empty());
            let document = bound.add(Value::Text(pattern.document.clone()));
            let matches = match plain {
                // Dividing a document into texts costs more than a comparison of the document.
                Some(plain) => {
                    let plain = bound.add(Value::Text(plain));
                    format!("lantern_document_contains({name}, {plain}, {text})")
                }
                None => {
                    let members = bound.add(Value::Text(serde_json::json!(members).to_string()));
                    let members = format!(
                        "ARRAY(SELECT json_array_elements_text(CAST(CAST({members} AS TEXT) AS JSON)))"
                    );
                    format!("lantern_document_matches({name}, {members}, {text})")
                }
            };
            format!("{name} ~ {document} AND {matches}")
        } else {
            format!("{name} ~ {text}")
        };
        either.push(format!("coalesce({matches}, FALSE)"));
    }
    let either = match either.as_slice() {
        [] => "FALSE".to_owned(),
        some => some.join(" OR "),
    };
    let sign = if term.is_excluded { "NOT " } else { "" };
    format!("{sign}({either})")
}
