//! What a query needs to know about a table: its columns as checked names with their types and roles, and its indexes,
//! so that the statement can use them.

use std::sync::Arc;

use super::connections::Row;
use super::few_proposals::FewProposals;
use super::text::json_size;
use super::{ReadError, Reader, TableEntry};
use crate::search::SearchableColumn;
use crate::sql::Engine;
use crate::values::Stored;
use lantern_model::batch::Value;
use lantern_model::schema::description::ColumnRole;
use lantern_model::schema::{ColumnName, ColumnType, TableName};

/// A table with its columns and indexes.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Its entry, with the description by its plugin.
    pub entry: TableEntry,
    /// In the order declared.
    pub columns: Vec<ShapeColumn>,
    time: Option<usize>,
    indexes: Vec<ShapeIndex>,
    is_segmented: bool,
    engine: Engine,
    /// The only rows that a query reads; all if none.
    proposed: Option<Arc<FewProposals>>,
}

/// A column with a checked name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeColumn {
    /// Its name.
    pub name: ColumnName,
    /// The type of its values.
    pub column_type: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
    /// Its role.
    pub role: Option<ColumnRole>,
}

/// An existing index of any origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ShapeIndex {
    unique: bool,
    columns: Vec<String>,
}

impl Shape {
    /// The position of a column.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns
            .iter()
            .position(|column| column.name.as_str() == name)
    }

    /// The column with the time of a row.
    pub fn time(&self) -> Option<usize> {
        self.time
    }

    /// Reads a value of a column at `index` of a row, with its approximate size in JSON.
    pub(super) fn value(
        &self,
        column: usize,
        row: &mut Row,
        index: usize,
    ) -> Result<(Value, usize), ReadError> {
        let column = &self.columns[column];
        let stored = row.take(index).map_err(ReadError::Sql)?;
        let size = match (&stored, column.column_type) {
            (Stored::Text(document), ColumnType::Json) => document.len(),
            (stored, _) => json_size(stored.as_ref()),
        };
        let value = stored.into_value(column.column_type).map_err(|why| {
            let what = format!("column {} of table {}", column.name, self.entry.name);
            ReadError::corrupt(what, why)
        })?;
        Ok((value, size))
    }

    /// Whether the table has segments instead of indexes on its facets.
    pub(super) fn is_segmented(&self) -> bool {
        self.is_segmented
    }

    /// The engine that has the table.
    pub(super) fn engine(&self) -> Engine {
        self.engine
    }

    /// The rows that a full-text index proposes, if queries read only these.
    pub(super) fn proposed(&self) -> Option<&FewProposals> {
        self.proposed.as_deref()
    }

    /// The same table, of which queries read only some rows.
    pub(super) fn with_proposed(&self, proposed: FewProposals) -> Self {
        Self {
            is_segmented: false,
            proposed: Some(Arc::new(proposed)),
            ..self.clone()
        }
    }

    /// The column with this name, if a search can name it.
    pub fn searchable(&self, name: &str) -> Option<SearchableColumn> {
        let position = self.position(name)?;
        let column_type = self.columns[position].column_type;
        column_type.is_searchable().then_some(SearchableColumn {
            position,
            is_json: column_type == ColumnType::Json,
        })
    }

    /// The positions of the columns that a search reads.
    pub(super) fn searched(&self) -> impl Iterator<Item = usize> {
        let columns = self.columns.iter().enumerate();
        columns
            .filter(|(_, column)| column.column_type.is_searchable())
            .map(|(position, _)| position)
    }

    /// The names of columns, by position.
    pub(super) fn names(&self, columns: &[usize]) -> Arc<[String]> {
        let names = columns
            .iter()
            .map(|&position| self.columns[position].name.to_string());
        names.collect()
    }

    /// The columns with a role, by position.
    pub fn with_role(&self, role: ColumnRole) -> impl Iterator<Item = usize> {
        let columns = self.columns.iter().enumerate();
        columns
            .filter(move |(_, column)| column.role == Some(role))
            .map(|(position, _)| position)
    }

    /// Whether an index returns rows with one value of `column` in the order of `then`: another column, or the row
    /// numbers if none.
    pub(super) fn leads(&self, column: usize, then: Option<usize>) -> bool {
        let name = |position: usize| self.columns[position].name.as_str();
        self.indexes.iter().any(|index| match then {
            Some(then) => index
                .columns
                .starts_with(&[name(column).into(), name(then).into()]),
            None => index.columns == [name(column)],
        })
    }

    /// Whether an index begins with this column.
    pub(super) fn is_indexed(&self, column: usize) -> bool {
        let name = self.columns[column].name.as_str();
        self.indexes
            .iter()
            .any(|index| index.columns.first().is_some_and(|first| first == name))
    }

    /// Whether these columns contain a unique key.
    pub(super) fn is_key(&self, columns: &[&str]) -> bool {
        self.indexes.iter().any(|index| {
            index.unique
                && !index.columns.is_empty()
                && index
                    .columns
                    .iter()
                    .all(|column| columns.contains(&column.as_str()))
        })
    }

    /// A table without known indexes: sufficient for parsing a query.
    pub fn unindexed(entry: TableEntry) -> Result<Self, ReadError> {
        Self::new(entry, Vec::new(), false)
    }

    fn new(entry: TableEntry, mut indexes: Vec<ShapeIndex>, is_segmented: bool) -> Result<Self, ReadError> {
        let what = || format!("the description of table {}", entry.name);
        let columns = entry
            .description
            .columns
            .iter()
            .map(|column| {
                Ok(ShapeColumn {
                    name: ColumnName::parse(&column.name)
                        .map_err(|error| ReadError::corrupt(what(), error))?,
                    column_type: column.column_type,
                    nullable: column.nullable,
                    role: column.role,
                })
            })
            .collect::<Result<Vec<ShapeColumn>, ReadError>>()?;
        let time = columns.iter().position(|column| {
            column.role == Some(ColumnRole::Time) && column.column_type == ColumnType::Timestamp
        });
        // A primary key of a single integer is the row number itself, and has no index.
        indexes.push(ShapeIndex {
            unique: true,
            columns: entry.description.primary_key.clone(),
        });
        Ok(Self {
            entry,
            columns,
            time,
            indexes,
            is_segmented,
            engine: Engine::Sqlite,
            proposed: None,
        })
    }
}

impl Reader {
    /// The table with this name, if a plugin owns one.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn shape(&self, name: &TableName) -> Result<Option<Shape>, ReadError> {
        match self.table(name).await? {
            Some(entry) => self.shape_of(entry).await.map(Some),
            None => Ok(None),
        }
    }

    /// The same for a listed table.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn shape_of(&self, entry: TableEntry) -> Result<Shape, ReadError> {
        let sql = self.location.engine().index_columns();
        let arguments = vec![entry.name.as_str().to_owned().into()];
        let parts = self
            .fetch(sql, arguments, usize::MAX, |row| {
                let name: Option<String> = row.get(2)?;
                Ok((row.get::<i64>(0)?, row.get::<bool>(1)?, name))
            })
            .await?;
        let mut indexes: Vec<(i64, ShapeIndex)> = Vec::new();
        for (number, unique, name) in parts {
            if indexes.last().is_none_or(|(last, _)| *last != number) {
                let columns = Vec::new();
                indexes.push((number, ShapeIndex { unique, columns }));
            }
            if let Some((_, index)) = indexes.last_mut() {
                // An expression has no name, and no query uses one.
                index.columns.push(name.unwrap_or_default());
            }
        }
        let is_segmented = self.is_segmented(&entry.name).await?;
        let indexes = indexes.into_iter().map(|(_, index)| index).collect();
        Ok(Shape {
            engine: self.location.engine(),
            ..Shape::new(entry, indexes, is_segmented)?
        })
    }
    async fn is_segmented(&self, name: &TableName) -> Result<bool, ReadError> {
        const SQL: &str = "SELECT EXISTS (SELECT 1 FROM _lantern_segments WHERE table_name = ?1)";
        let arguments = vec![name.as_str().to_owned().into()];
        let found = self.fetch(SQL, arguments, 1, |row| row.get(0)).await?;
        Ok(found.first() == Some(&true))
    }
}
