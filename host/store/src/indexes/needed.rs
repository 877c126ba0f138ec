//! Which indexes the queries of the API need in addition to the declared ones.

use crate::description::{ColumnDescription, ColumnRole, TableDescription};

/// Indexes that the host creates for the entities and facets of a table, in the order of declaration. Each makes every
/// insert slower, and few users filter by more facets than this.
const ROLE_INDEXES_MAX: usize = 8;

/// The columns of the indexes that a table needs in addition to the declared ones.
pub(crate) fn needed(table: &TableDescription, has_segments: bool) -> Vec<Vec<String>> {
    let declared = table.indexes.iter().map(|index| index.columns.as_slice());
    let declared: Vec<&[String]> = declared.chain([table.primary_key.as_slice()]).collect();
    wanted(table, has_segments)
        .into_iter()
        .filter(|columns| !declared.iter().any(|declared| declared.starts_with(columns)))
        .collect()
}

/// The columns of the indexes that serve the queries of the API.
fn wanted(table: &TableDescription, has_segments: bool) -> Vec<Vec<String>> {
    let present = || table.columns.iter().filter(|column| !column.retired);
    let with = |role: ColumnRole| present().filter(move |column| column.role == Some(role));
    let can_lead = |column: &&ColumnDescription| column.column_type.is_sortable();
    let time = with(ColumnRole::Time).map(|column| column.name.clone()).next();
    let by_time: Vec<Vec<String>> = time.iter().map(|time| vec![time.clone()]).collect();
    let by_role = with(ColumnRole::Entity)
        .chain(with(ColumnRole::Facet).filter(|_| !has_segments))
        .filter(can_lead)
        .take(ROLE_INDEXES_MAX)
        .map(|column| std::iter::once(column.name.clone()).chain(time.clone()).collect());
    by_time.into_iter().chain(by_role).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_model::schema::{Column, ColumnName, ColumnType, DeclaredRole, Index, Table, TableName};

    fn table(columns: &[(&str, DeclaredRole, ColumnType)], indexes: &[&[&str]]) -> TableDescription {
        let name = |name: &str| ColumnName::parse(name).unwrap();
        let column = |(at, role, column_type): &(&str, DeclaredRole, ColumnType)| Column {
            name: name(at),
            column_type: *column_type,
            nullable: true,
            role: role.clone(),
            doc: String::new(),
            hints: Vec::new(),
        };
        let index = |columns: &&[&str]| Index {
            columns: columns.iter().map(|column| name(column)).collect(),
            unique: false,
        };
        TableDescription::from(&Table {
            name: TableName::parse("t").unwrap(),
            doc: String::new(),
            columns: columns.iter().map(column).collect(),
            primary_key: Vec::new(),
            indexes: indexes.iter().map(index).collect(),
            retention_days: None,
            hints: Vec::new(),
        })
    }

    #[test]
    fn a_table_needs_an_index_for_each_role_that_no_declared_one_serves() {
        use ColumnType::{Json, Text, Timestamp};
        let columns = [
            ("kind", DeclaredRole::Facet, Text),
            ("at", DeclaredRole::Time, Timestamp),
            ("pc", DeclaredRole::Entity, Text),
            ("tags", DeclaredRole::Facet, Json),
            ("note", DeclaredRole::None, Text),
        ];
        assert_eq!(
            needed(&table(&columns, &[]), false),
            [vec!["at"], vec!["pc", "at"], vec!["kind", "at"]]
        );
        assert_eq!(
            needed(&table(&columns, &[]), true),
            [vec!["at"], vec!["pc", "at"]]
        );
        let served: &[&[&str]] = &[&["at", "kind"], &["pc", "at", "note"], &["kind"]];
        assert_eq!(needed(&table(&columns, served), false), [["kind", "at"]]);
        assert_eq!(needed(&table(&columns[..1], &[]), false), [["kind"]]);
        let names: Vec<String> = (0..30).map(|number| format!("f{number}")).collect();
        let many: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), DeclaredRole::Facet, Text))
            .collect();
        assert_eq!(needed(&table(&many, &[]), false).len(), ROLE_INDEXES_MAX);
    }
}
