//! The size of the pages of a new database file. A commit writes each changed page as a whole, so smaller pages write less for
//! each row; they cost CPU time at full rate (docs/adr/0001-one-writer.md).

/// Size of the pages of a new database file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize {
    name: &'static str,
    bytes: u32,
}

impl PageSize {
    const ALL: [Self; 4] = [
        Self::of("1 KiB", 1 << 10),
        Self::DEFAULT,
        Self::of("4 KiB", 4 << 10),
        Self::of("8 KiB", 8 << 10),
    ];

    /// The size if the operator configures none.
    pub const DEFAULT: Self = Self::of("2 KiB", 2 << 10);

    /// The names of all sizes.
    pub const NAMES: [&str; 4] = [
        Self::ALL[0].name,
        Self::ALL[1].name,
        Self::ALL[2].name,
        Self::ALL[3].name,
    ];

    const fn of(name: &'static str, bytes: u32) -> Self {
        Self { name, bytes }
    }

    /// The size with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.name == name)
    }

    /// The name, as in the configuration.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The size in bytes.
    pub fn bytes(self) -> u32 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, examine};
    use crate::testing::{Scene, note, order};
    use crate::{DATABASE_FILE, Store, StoreConfig};

    /// Opens a store with this configuration, and returns the size of its pages.
    async fn page_bytes(config: StoreConfig) -> u64 {
        let path = config.dir.join(DATABASE_FILE);
        Store::open(config).await.unwrap().close().await;
        examine(&path).unwrap().page_bytes
    }

    #[tokio::test]
    async fn a_new_database_has_pages_of_the_configured_size_and_an_existing_one_keeps_its_own() {
        for name in PageSize::NAMES {
            let dir = tempfile::tempdir().unwrap();
            let page_size = PageSize::named(name).unwrap();
            let created = StoreConfig {
                page_size,
                ..StoreConfig::new(dir.path())
            };
            assert_eq!(page_bytes(created).await, u64::from(page_size.bytes()), "{name}");
            let reopened = page_bytes(StoreConfig::new(dir.path())).await;
            assert_eq!(reopened, u64::from(page_size.bytes()), "{name}");
        }
    }

    #[tokio::test]
    async fn pages_of_a_new_database_have_two_kibibytes_by_default() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(page_bytes(StoreConfig::new(dir.path())).await, 2_048);
    }

    /// The statements of docs/operations.md.
    const REWRITE: &str =
        "PRAGMA journal_mode = delete; PRAGMA page_size = 8192; VACUUM; PRAGMA journal_mode = wal;";

    #[tokio::test]
    async fn an_operator_can_rewrite_a_database_with_pages_of_another_size() {
        let dir = tempfile::tempdir().unwrap();
        let scene = Scene::open(dir.path()).await;
        let outcomes = vec![order("a", 1), note(5), order("b", 2)];
        scene.store.commit(scene.batch(0, outcomes)).await.unwrap();
        scene.store.close().await;
        let path = dir.path().join(DATABASE_FILE);
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch(REWRITE).unwrap();
        drop(connection);
        assert_eq!(page_bytes(StoreConfig::new(dir.path())).await, 8_192);
        assert_eq!(check(&path).unwrap().problems, []);
    }
}
