//! Parameters of a statement: arrays of one type, lists of several types (`params!`), and iterators.

use rusqlite::ToSql;

/// Values for the parameters of a statement, in order.
pub(crate) trait Parameters {
    /// Calls `run` with the values.
    fn bind<R>(&self, run: impl FnOnce(&[&dyn ToSql]) -> R) -> R;
}

impl Parameters for &[&dyn ToSql] {
    fn bind<R>(&self, run: impl FnOnce(&[&dyn ToSql]) -> R) -> R {
        run(self)
    }
}

impl Parameters for [&(dyn ToSql + Send + Sync); 0] {
    fn bind<R>(&self, run: impl FnOnce(&[&dyn ToSql]) -> R) -> R {
        run(&[])
    }
}

macro_rules! arrays {
    ($($size:literal)+) => {$(
        impl<T: ToSql> Parameters for [T; $size] {
            fn bind<R>(&self, run: impl FnOnce(&[&dyn ToSql]) -> R) -> R {
                run(&self.each_ref().map(|value| value as &dyn ToSql))
            }
        }
        impl<T: ToSql> Parameters for &[T; $size] {
            fn bind<R>(&self, run: impl FnOnce(&[&dyn ToSql]) -> R) -> R {
                run(&self.each_ref().map(|value| value as &dyn ToSql))
            }
        }
    )+};
}
arrays!(1 2 3 4 5 6 7);

/// The values of an iterator.
pub(crate) struct FromIter<T>(Vec<T>);

/// Parameters from an iterator.
pub(crate) fn from_iter<T: ToSql>(values: impl IntoIterator<Item = T>) -> FromIter<T> {
    FromIter(values.into_iter().collect())
}

impl<T: ToSql> Parameters for FromIter<T> {
    fn bind<R>(&self, run: impl FnOnce(&[&dyn ToSql]) -> R) -> R {
        let values: Vec<&dyn ToSql> = self.0.iter().map(|value| value as &dyn ToSql).collect();
        run(&values)
    }
}
