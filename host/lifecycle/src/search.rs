//! Turns full-text search in tables on and off. The background job of the host builds and removes the indexes.

use std::sync::Arc;

use super::{Lifecycle, LifecycleError, Requester};
use lantern_model::schema::TableName;

impl Lifecycle {
    /// Turns full-text search in a table on or off.
    ///
    /// # Errors
    /// See [`LifecycleError`]; nothing has changed then.
    pub async fn set_search(
        &self,
        table: &TableName,
        enabled: bool,
        by: impl Into<Requester>,
    ) -> Result<(), LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (table, by) = (table.clone(), by.into());
        let change = async move {
            let word = if enabled { "on" } else { "off" };
            let mark = by.mark(
                "table.search",
                None,
                None,
                format!("search in table {table} {word}"),
            );
            inner
                .parts
                .store
                .search()
                .set_enabled(&table, enabled, mark)
                .await?;
            tracing::info!(%table, enabled, %by, "changed full-text search in a table");
            Ok(())
        };
        self.detached(change).await
    }
}
